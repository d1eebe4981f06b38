export type { TokenUsage } from './record.ts';
