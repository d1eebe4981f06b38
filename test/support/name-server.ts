import { createSocket, type RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { isIPv4 } from 'node:net';

/** Per question: addresses, a failure, or nothing at all. Families are asked for one by one. */
export type DnsAnswer = readonly string[] | 'absent' | 'failing' | 'silent';

const RESPONSE_CODES = { absent: 3, failing: 2 };
const IPV6 = 28;

/** A name server on loopback that speaks DNS over UDP (RFC 1035, just enough for A and AAAA). */
export async function startNameServer(answer: (name: string, family: 4 | 6) => DnsAnswer) {
  const socket = createSocket('udp4');
  /** Names asked for, lower case, one entry per question that arrived. */
  const asked: string[] = [];
  socket.on('message', (question: Buffer, from: RemoteInfo) => {
    const { name, end } = readName(question);
    const family = question.readUInt16BE(end) === IPV6 ? 6 : 4;
    asked.push(name);
    const answered = answer(name, family);
    if (answered !== 'silent')
      socket.send(reply(question.subarray(0, end + 4), answered), from.port, from.address);
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

/** The name of the one question, and where its type begins. */
function readName(message: Buffer) {
  const labels: string[] = [];
  let at = 12;
  for (let length = message[at] ?? 0; length > 0; length = message[at] ?? 0) {
    labels.push(message.toString('latin1', at + 1, at + 1 + length));
    at += 1 + length;
  }
  return { name: labels.join('.').toLowerCase(), end: at + 1 };
}

function reply(question: Buffer, answered: Exclude<DnsAnswer, 'silent'>): Buffer {
  const addresses = typeof answered === 'string' ? [] : answered;
  const head = Buffer.from(question);
  head.writeUInt16BE(0x8180 | (typeof answered === 'string' ? RESPONSE_CODES[answered] : 0), 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(addresses.length, 6);
  head.writeUInt32BE(0, 8);
  return Buffer.concat([head, ...addresses.map(resourceRecord)]);
}

/** IPv6 addresses are written in full, without `::`. */
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
  head.writeUInt16BE(0xc00c, 0); // The name of the question.
  head.writeUInt16BE(data.length === 4 ? 1 : IPV6, 2);
  head.writeUInt16BE(1, 4);
  head.writeUInt16BE(data.length, 10);
  return Buffer.concat([head, data]);
}
