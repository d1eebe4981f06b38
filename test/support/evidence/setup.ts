/** Runs before each test file, in its process. */
import { evidence } from '../evidence.ts';
import { recordResponses } from './responses.ts';

recordResponses(evidence);
