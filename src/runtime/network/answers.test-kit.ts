import { createSocket } from "node:dgram";
import { createServer } from "node:net";

// A server for tests, in whatever network namespace it is started: over TCP it says who called; over UDP it says so too, and to
// what is a question for names (RFC 1035) that every name is 10.1.2.3. Ends with its standard input.
const [address = "", tcpPort = "", udpPort = ""] = process.argv.slice(2);
const headerBytes = 12;
const flagsOfAnswer = 0x8180;
const answered = [10, 1, 2, 3];

const tcp = createServer((socket) => {
  socket.on("error", () => undefined);
  socket.end(`tcp from ${socket.remoteAddress}\n`);
});
const udp = createSocket("udp4", (question, from) => {
  const isName = question.length > headerBytes && question.readUInt16BE(4) === 1;
  udp.send(isName ? answerOf(question) : Buffer.from(`udp from ${from.address}\n`), from.port, from.address);
});
udp.bind({ address, port: Number(udpPort) }, () =>
  tcp.listen(Number(tcpPort), address, () => process.stdout.write("ready\n")),
);
process.stdin.on("end", () => process.exit()).resume();

/** The header with one answer, the question as it came, and an A record of the name at offset 12. */
function answerOf(question: Buffer): Buffer {
  const isAddress = question.readUInt16BE(question.length - 4) === 1;
  const header = Buffer.alloc(headerBytes);
  question.copy(header, 0, 0, 2);
  header.writeUInt16BE(flagsOfAnswer, 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(isAddress ? 1 : 0, 6);
  const record = Buffer.from([0xc0, headerBytes, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, ...answered]);
  return Buffer.concat([header, question.subarray(headerBytes), ...(isAddress ? [record] : [])]);
}
