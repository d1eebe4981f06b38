import { EventEmitter } from 'node:events';
import { jest } from '@jest/globals';
import type { Response } from 'express';

/** A client's connection, as far as it matters for closing it. */
export function createSocket() {
  return Object.assign(new EventEmitter(), { destroyed: false, destroySoon: jest.fn() });
}

/** A response on a connection, as far as it matters. */
export function createResponse(socket: EventEmitter): Response & EventEmitter {
  return Object.assign(new EventEmitter(), { req: { socket } }) as unknown as Response & EventEmitter;
}
