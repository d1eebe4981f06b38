import { createTheme, type CSSVariablesResolver, type MantineColorsTuple } from '@mantine/core';

/** The one accent. Shade 8 is the filled one: white text on it has a contrast of 7. */
const teal: MantineColorsTuple = [
  '#e9f6f4',
  '#d3ebe7',
  '#a7d7cf',
  '#79c2b6',
  '#53b0a1',
  '#3aa494',
  '#2c8c7e',
  '#217468',
  '#1b5e57',
  '#124742',
];

/** Grey with a little of the accent, from text (0) to the deepest ground (9). */
const dark: MantineColorsTuple = [
  '#d7dedc',
  '#aeb9b6',
  '#8c9895',
  '#5c6866',
  '#3a4543',
  '#2d3735',
  '#242d2b',
  '#1a2220',
  '#151c1a',
  '#101615',
];

export const theme = createTheme({
  primaryColor: 'accent',
  colors: { accent: teal, dark },
  black: '#17201e',
  primaryShade: { light: 8, dark: 7 },
  autoContrast: true,
  luminanceThreshold: 0.179,
  defaultRadius: 'md',
  respectReducedMotion: true,
  fontFamily: 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif',
  fontFamilyMonospace: 'ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace',
  // A 4 px grid: all gaps are multiples of it.
  spacing: { xs: '8px', sm: '12px', md: '16px', lg: '24px', xl: '32px' },
  fontSizes: { xs: '12px', sm: '14px', md: '15px', lg: '18px', xl: '22px' },
  headings: {
    fontWeight: '650',
    sizes: {
      h1: { fontSize: '24px', lineHeight: '32px' },
      h2: { fontSize: '18px', lineHeight: '28px' },
      h3: { fontSize: '15px', lineHeight: '24px' },
    },
  },
  components: {
    Button: { defaultProps: { size: 'sm' } },
    CloseButton: { defaultProps: { 'aria-label': 'Close' } },
    Modal: { defaultProps: { centered: true, closeButtonProps: { 'aria-label': 'Close' } } },
    Drawer: { defaultProps: { closeButtonProps: { 'aria-label': 'Close' } } },
    // Mantine's dialogs begin with a `header` element, which would be a second banner of the page.
    ModalHeader: { defaultProps: { role: 'none' } },
    DrawerHeader: { defaultProps: { role: 'none' } },
    Notification: { defaultProps: { closeButtonProps: { 'aria-label': 'Close' } } },
    Menu: { defaultProps: { withInitialFocusPlaceholder: false } },
  },
});

const COLORS = ['accent', 'gray', 'red', 'yellow', 'green', 'blue', 'orange'] as const;

/** Mantine's default shades for text miss a contrast of 4.5 on its default grounds. */
export const cssVariablesResolver: CSSVariablesResolver = () => {
  const forAllColors = (toValues: (color: string) => Record<string, string>) =>
    Object.assign({}, ...COLORS.map(toValues)) as Record<string, string>;
  return {
    variables: {},
    light: {
      // The ground beside the content: menu and code.
      '--ops-ground': '#f5f8f7',
      // Notices above the page: the opposite of its own colours.
      '--ops-notice': '#24302d',
      '--ops-notice-text': '#ffffff',
      '--mantine-color-dimmed': 'var(--mantine-color-gray-7)',
      '--mantine-color-placeholder': 'var(--mantine-color-gray-7)',
      '--mantine-color-error': 'var(--mantine-color-red-9)',
      '--mantine-color-anchor': 'var(--mantine-color-accent-8)',
      ...forAllColors((color) => {
        const dark = `color-mix(in srgb, var(--mantine-color-${color}-9), black 40%)`;
        return {
          [`--mantine-color-${color}-text`]: dark,
          [`--mantine-color-${color}-outline`]: dark,
          [`--mantine-color-${color}-light-color`]: dark,
        };
      }),
    },
    dark: {
      '--ops-ground': 'var(--mantine-color-dark-8)',
      '--ops-notice': 'var(--mantine-color-dark-0)',
      '--ops-notice-text': 'var(--mantine-color-dark-9)',
      '--mantine-color-dimmed': 'var(--mantine-color-dark-1)',
      '--mantine-color-placeholder': 'var(--mantine-color-dark-1)',
      '--mantine-color-error': 'var(--mantine-color-red-4)',
      '--mantine-color-anchor': 'var(--mantine-color-accent-3)',
      ...forAllColors((color) => {
        const light = `var(--mantine-color-${color}-3)`;
        return {
          [`--mantine-color-${color}-text`]: light,
          [`--mantine-color-${color}-outline`]: light,
          [`--mantine-color-${color}-light-color`]: light,
        };
      }),
    },
  };
};
