import { useEffect, useState, type ReactNode } from 'react';
import { formatDateTime, formatRelative } from '../texts/format.ts';

const REFRESH_MS = 30_000;

/** E.g. "3 minutes ago", kept current; the full time on hover. @param props.time ISO 8601. */
export function RelativeTime({ time }: { time: string }): ReactNode {
  const [nowMs, setNowMs] = useState(() => Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNowMs(Date.now()), REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  return (
    <time dateTime={time} title={formatDateTime(time)}>
      {formatRelative(time, nowMs)}
    </time>
  );
}
