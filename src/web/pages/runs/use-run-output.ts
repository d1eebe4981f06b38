import { useEffect, useState } from 'react';
import { followRun } from '../../api/run-events.ts';
import { isApiError } from '../../api/problem.ts';
import { setAppState } from '../../app-state.ts';
import { createRunOutput, type RunOutput } from './run-output.ts';

export interface FollowedRun {
  output: RunOutput;
  isConnected: boolean;
  error: unknown;
}

const EMPTY: FollowedRun = { output: createRunOutput().read(), isConnected: true, error: undefined };

/** Follows a run while the component is shown. Draws at most once a frame, however much output arrives. */
export function useRunOutput(id: string): FollowedRun {
  const [followed, setFollowed] = useState(EMPTY);
  useEffect(() => {
    const stop = new AbortController();
    const output = createRunOutput();
    let state: Omit<FollowedRun, 'output'> = { isConnected: true, error: undefined };
    let frame: number | undefined;
    const draw = () => {
      frame ??= requestAnimationFrame(() => {
        frame = undefined;
        setFollowed({ output: output.read(), ...state });
      });
    };
    followRun(id, {
      signal: stop.signal,
      onEvent: (event) => {
        output.add(event);
        draw();
      },
      onConnected: (isConnected) => {
        state = { ...state, isConnected };
        draw();
      },
    }).catch((error: unknown) => {
      if (isApiError(error, 'unauthenticated')) setAppState({ session: 'ended' });
      state = { ...state, error };
      draw();
    });
    return () => {
      stop.abort();
      if (frame !== undefined) cancelAnimationFrame(frame);
    };
  }, [id]);
  return followed;
}
