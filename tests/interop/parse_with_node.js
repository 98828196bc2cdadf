// Reads streams of HTTP/1.1 requests, one per line in hex, with the server of Node.js, whose parser is llhttp. Prints for
// each the complete requests and what the parser does next.
const fs = require("node:fs");
const http = require("node:http");
const { Duplex } = require("node:stream");

const server = http.createServer({ requireHostHeader: false, insecureHTTPParser: false, maxHeaderSize: 65536 });
const receive = (request) => {
  const chunks = [];
  const { socket } = request;
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const fields = [];
    for (let i = 0; i < request.rawHeaders.length; i += 2) fields.push([request.rawHeaders[i], request.rawHeaders[i + 1]]);
    socket.received.push([request.method, request.url, fields, Buffer.concat(chunks).toString("hex")]);
  });
};
for (const event of ["request", "checkContinue", "checkExpectation"]) server.on(event, receive);
server.on("clientError", (error, socket) => {
  socket.ending ??= error.code === "HPE_CLOSED_CONNECTION" ? "closed" : `rejected ${error.code}`;
});

async function read(bytes) {
  const socket = new Duplex({ read() {}, write: (chunk, encoding, done) => done() });
  socket.received = [];
  server.emit("connection", socket);
  socket.push(bytes);
  // All steps of the parser and of the streams are microtasks or ticks, which end before the second immediate.
  for (let i = 0; i < 3; i++) await new Promise(setImmediate);
  const line = JSON.stringify({ requests: socket.received, ending: socket.ending ?? "waits" });
  socket.on("error", () => {});
  socket.destroy();
  return line;
}

(async () => {
  const streams = fs.readFileSync(process.argv[2], "ascii").split("\n").filter((line) => line !== "");
  for (const stream of streams) process.stdout.write(`${await read(Buffer.from(stream, "hex"))}\n`);
})();
