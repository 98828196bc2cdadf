// Uploads a file with Node.js' HTTP/1.1 or HTTP/2 client, and prints the status and the length of the response's body.

const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');

const [version, origin, path, file] = process.argv.slice(2);
const body = fs.createReadStream(file);
let session, status;

const read = (stream) => {
  let length = 0;
  stream.on('data', (piece) => { length += piece.length; });
  stream.on('end', () => {
    console.log(`${status} ${length}`);
    process.exit(0);
  });
};
const failed = (error) => console.error(`${version}: ${error.message}`);

if (version === '1') {
  const request = http.request(`${origin}${path}`, { method: 'POST' });
  request.on('response', (response) => {
    status = response.statusCode;
    read(response);
  });
  request.on('error', failed);
  body.pipe(request);
} else {
  session = http2.connect(origin);
  session.on('error', failed);
  const request = session.request({ ':method': 'POST', ':path': path });
  request.on('response', (headers) => { status = headers[':status']; });
  request.on('error', failed);
  request.on('close', () => session.close());
  read(request);
  body.pipe(request);
}
