import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';
import { expect } from '@jest/globals';
import type { AxeResults } from 'axe-core';
import type { Page } from 'playwright-core';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const WIDTHS = [320, 1280];
/** Only these depend on colours, so dark pages need no others. */
const COLOR_RULES = ['color-contrast', 'link-in-text-block'];
const COLOR_SCHEMES = ['light', 'dark'] as const;

/**
 * Expects that axe finds nothing, with all of its rules, in light and dark, on a phone and on a wide screen, and that
 * nothing is wider than the window. Opened dialogs are checked with the page.
 * @param widths in pixels, for what exists on some widths only, such as the drawer of a phone.
 */
export async function expectAccessible(page: Page, widths = WIDTHS): Promise<void> {
  const size = page.viewportSize();
  for (const width of widths) {
    await page.setViewportSize({ width, height: 800 });
    for (const colorScheme of COLOR_SCHEMES) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      await page.evaluate(waitUntilDrawn);
      const { violations, tooWide } = await inspect(page, colorScheme === 'dark' ? COLOR_RULES : null);
      expect({ width, colorScheme, violations, tooWide }).toEqual({
        width,
        colorScheme,
        violations: [],
        tooWide: [],
      });
    }
  }
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
  if (size !== null) await page.setViewportSize(size);
}

/** Runs in the page. A frame draws the new colours and starts transitions, whose colours in between are no matter. */
async function waitUntilDrawn(): Promise<void> {
  const { document, requestAnimationFrame } = globalThis as unknown as {
    document: {
      getAnimations(): {
        finished: Promise<unknown>;
        effect: { getComputedTiming(): { endTime: number } } | null;
      }[];
    };
    requestAnimationFrame: (callback: () => void) => void;
  };
  await new Promise<void>((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
  const ending = document
    .getAnimations()
    .filter(({ effect }) => (effect?.getComputedTiming().endTime ?? 0) !== Infinity);
  await Promise.allSettled(ending.map(({ finished }) => finished));
}

interface PageElement {
  outerHTML: string;
  getBoundingClientRect(): { right: number };
}

async function inspect(
  page: Page,
  rules: string[] | null,
): Promise<{ violations: string[]; tooWide: string[] }> {
  if (!(await page.evaluate<boolean>("'axe' in globalThis"))) await page.evaluate(AXE);
  return page.evaluate(async (runOnly) => {
    const { axe, document } = globalThis as unknown as {
      axe: { run(options: { runOnly?: string[] }): Promise<AxeResults> };
      document: {
        documentElement: { scrollWidth: number; clientWidth: number };
        querySelectorAll(selector: string): ArrayLike<PageElement>;
      };
    };
    const { violations } = await axe.run(runOnly === null ? {} : { runOnly });
    const { scrollWidth, clientWidth } = document.documentElement;
    const elements = scrollWidth > clientWidth ? Array.from(document.querySelectorAll('body *')) : [];
    return {
      violations: violations.flatMap(({ id, help, nodes }) =>
        nodes.map((node) => `${id}: ${node.failureSummary ?? help}: ${node.html.slice(0, 300)}`),
      ),
      tooWide: elements
        .filter((element) => element.getBoundingClientRect().right > clientWidth)
        .map((element) => element.outerHTML.slice(0, 200)),
    };
  }, rules);
}

/**
 * Presses Tab until the control with this accessible name has the focus.
 * @throws when 100 controls are passed, or when the browser draws no outline around the focused one.
 */
export async function tabTo(page: Page, name: string | RegExp): Promise<void> {
  const passed: string[] = [];
  while (passed.length < 100) {
    await page.keyboard.press('Tab');
    const focused = await readFocusedName(page);
    passed.push(focused);
    if (typeof name === 'string' ? focused !== name : !name.test(focused)) continue;
    expect({ name: focused, hasOutline: await page.evaluate(isFocusDrawn) }).toEqual({
      name: focused,
      hasOutline: true,
    });
    return;
  }
  throw new Error(`No control named ${String(name)} gets the focus, but ${[...new Set(passed)].join(', ')}.`);
}

/** The accessible name of the focused element, as a screen reader says it. */
async function readFocusedName(page: Page): Promise<string> {
  // Nothing is focused between the last control and the first one.
  const focused = page.locator('*:focus');
  if ((await focused.count()) === 0) return '';
  const snapshot = await focused.first().ariaSnapshot();
  return /^- \w+ "((?:[^"\\]|\\.)*)"/.exec(snapshot)?.[1]?.replaceAll('\\"', '"') ?? '';
}

/** Runs in the page and has no access to this file. */
function isFocusDrawn(): boolean {
  interface Element {
    parentElement: Element | null;
    nextElementSibling: Element | null;
  }
  const { document, getComputedStyle } = globalThis as unknown as {
    document: { activeElement: Element };
    getComputedStyle: (element: Element) => { outlineStyle: string; outlineWidth: string };
  };
  const { activeElement } = document;
  // Some controls, such as segmented ones, draw the outline on the label beside the input.
  return [activeElement, activeElement.parentElement, activeElement.nextElementSibling].some((element) => {
    if (element === null) return false;
    const { outlineStyle, outlineWidth } = getComputedStyle(element);
    return outlineStyle !== 'none' && outlineWidth !== '0px';
  });
}
