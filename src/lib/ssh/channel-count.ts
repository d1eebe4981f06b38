/** What a refused channel says about its connection, when all channels that were opening have been answered. */
export interface RefusedChannel {
  /** Channels that were open at the same time since the previous refusal: the server allows no more. */
  maxOpen: number;
  /** Whether the connection has ever had a channel. */
  hasOpened: boolean;
}

/** A channel of a connection: first opening, then open or refused. */
export interface CountedChannel {
  open(): void;
  /** Ends it. No other channel is added to the connection until those that are opening have been answered. */
  refuse(): Promise<RefusedChannel>;
  /** @returns false when it has already ended. */
  end(): boolean;
}

/** Counts the channels of one connection. */
export interface ChannelCount {
  isEmpty(): boolean;
  isLast(): boolean;
  /** False also while a refusal is being evaluated. */
  hasRoom(maxChannels: number): boolean;
  add(): CountedChannel;
}

export function createChannelCount(): ChannelCount {
  let opening = 0;
  let open = 0;
  let maxOpen = 0;
  let hasOpened = false;
  let refusal: PromiseWithResolvers<RefusedChannel> | undefined;

  /** The server answers in order, so the channels that opened before a refused one may be counted only after it. */
  function evaluateRefusal(): void {
    if (opening > 0 || refusal === undefined) return;
    refusal.resolve({ maxOpen, hasOpened });
    refusal = undefined;
    maxOpen = open;
  }

  return {
    isEmpty: () => opening + open === 0,
    isLast: () => opening + open === 1,
    hasRoom: (maxChannels) => refusal === undefined && opening + open < maxChannels,
    add() {
      opening += 1;
      let state: 'opening' | 'open' | 'ended' = 'opening';

      function end(): boolean {
        if (state === 'ended') return false;
        if (state === 'open') open -= 1;
        else opening -= 1;
        state = 'ended';
        evaluateRefusal();
        return true;
      }

      return {
        end,
        open() {
          if (state !== 'opening') return;
          state = 'open';
          opening -= 1;
          open += 1;
          maxOpen = Math.max(maxOpen, open);
          hasOpened = true;
          evaluateRefusal();
        },
        refuse() {
          refusal ??= Promise.withResolvers();
          const { promise } = refusal;
          end();
          return promise;
        },
      };
    },
  };
}
