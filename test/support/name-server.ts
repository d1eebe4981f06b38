import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { isIPv4 } from 'node:net';

/** Per query: addresses, an error, or no response. A query is for one address family. */
export type DnsAnswer = readonly string[] | 'absent' | 'failing' | 'silent';

const RESPONSE_CODES = { absent: 3, failing: 2 };
const IPV6 = 28;

/** A name server on loopback: DNS over UDP (RFC 1035), for A and AAAA queries only. */
export async function startNameServer(respond: (name: string, family: 4 | 6) => DnsAnswer) {
  const socket = createSocket('udp4');
  /** Queried names in lower case, one entry per received query. */
  const asked: string[] = [];
  socket.on('message', (question: Buffer, from: RemoteInfo) => {
    const { name, end } = readName(question);
    const family = question.readUInt16BE(end) === IPV6 ? 6 : 4;
    asked.push(name);
    const result = respond(name, family);
    if (result !== 'silent')
      socket.send(reply(question.subarray(0, end + 4), result), from.port, from.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return {
    asked,
    address: `127.0.0.1:${socket.address().port}`,
    async close() {
      socket.close();
      await once(socket, 'close');
    },
  };
}

/** The name in the question section, and the offset of its type. */
function readName(message: Buffer) {
  const labels: string[] = [];
  let at = 12;
  for (let length = message[at] ?? 0; length > 0; length = message[at] ?? 0) {
    labels.push(message.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join('.').toLowerCase(), end: at + 1 };
}

function reply(question: Buffer, result: Exclude<DnsAnswer, 'silent'>): Buffer {
  const addresses = typeof result === 'string' ? [] : result;
  const head = Buffer.from(question);
  head.writeUInt16BE(0x8180 | (typeof result === 'string' ? RESPONSE_CODES[result] : 0), 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(addresses.length, 6);
  head.writeUInt32BE(0, 8);
  return Buffer.concat([head, ...addresses.map(resourceRecord)]);
}

/** @param address IPv6 in full form, without `::`. */
function resourceRecord(address: string): Buffer {
  const data = isIPv4(address)
    ? Buffer.from(address.split('.').map(Number))
    : Buffer.from(
        address
          .split(':')
          .map((word) => word.padStart(4, '0'))
          .join(''),
        'hex',
      );
  const head = Buffer.alloc(12);
  head.writeUInt16BE(0xc00c, 0); // A pointer to the name in the question.
  head.writeUInt16BE(data.length === 4 ? 1 : IPV6, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(data.length, 10);
  return Buffer.concat([head, data]);
}
