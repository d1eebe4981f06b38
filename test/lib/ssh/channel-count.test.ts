import { describe, expect, it } from '@jest/globals';
import { createChannelCount, type CountedChannel } from '../../../src/lib/ssh/channel-count.ts';

describe('the channels of a connection', () => {
  const add = (count: number, channels = createChannelCount()) => {
    const added = Array.from({ length: count }, () => channels.add());
    return { channels, added };
  };
  const get = (added: readonly CountedChannel[], index: number): CountedChannel => {
    const found = added[index];
    if (found === undefined) throw new Error('no such channel');
    return found;
  };

  it('are counted while they open and while they are open', () => {
    const { channels, added } = add(2);
    expect([channels.hasRoom(2), channels.hasRoom(3), channels.isEmpty()]).toEqual([false, true, false]);
    get(added, 0).open();
    expect(get(added, 0).end()).toBe(true);
    expect(get(added, 0).end()).toBe(false);
    expect([channels.isLast(), channels.hasRoom(2)]).toEqual([true, true]);
    get(added, 1).end();
    expect(channels.isEmpty()).toBe(true);
  });

  it('have the limit that is seen when all openings have been answered', async () => {
    const { channels, added } = add(4);
    const refused = [get(added, 2).refuse(), get(added, 3).refuse()];
    expect(channels.hasRoom(8)).toBe(false);
    get(added, 0).open();
    get(added, 1).open();
    const expected = { maxOpen: 2, hasOpened: true };
    expect(await Promise.all(refused)).toEqual([expected, expected]);
    expect(channels.hasRoom(8)).toBe(true);
  });

  it('count those that ended before the refusal was evaluated', async () => {
    const { added } = add(2);
    const refused = get(added, 1).refuse();
    get(added, 0).open();
    expect(await refused).toEqual({ maxOpen: 1, hasOpened: true });
    get(added, 0).end();
    const { added: more } = add(2);
    get(more, 0).open();
    get(more, 0).end();
    expect(await get(more, 1).refuse()).toEqual({ maxOpen: 1, hasOpened: true });
  });

  it('have a lower limit when they are refused again with fewer open', async () => {
    const { channels, added } = add(3);
    for (const channel of added) channel.open();
    for (const maxOpen of [3, 3, 2, 2]) {
      expect(await channels.add().refuse()).toEqual({ maxOpen, hasOpened: true });
      if (maxOpen === 3) get(added, 0).end();
    }
  });

  it('have never been open when the first is refused', async () => {
    const { added } = add(1);
    expect(await get(added, 0).refuse()).toEqual({ maxOpen: 0, hasOpened: false });
  });
});
