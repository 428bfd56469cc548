// A real D1 (miniflare, offline) behind the shape of its REST API, with faults on demand.
//
//   node server.mjs          prints {"port": N} when ready, and ends when its stdin is closed
//
// POST /control/fault {kind, times, ...}   the next calls go wrong: see `faults` below
// POST /control/reset                      empty table, no faults, counters at 0
// GET  /control/calls                      what came: [{statements: [sql, ...], status}]
// POST /control/sql [{sql, params}, ...]   rows of each statement
//
// This process and not the Worker makes the faults: only here can a connection be cut.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { Miniflare } from "miniflare";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const { ACCOUNT = "account", DATABASE = "database", TOKEN = "token" } = process.env;

const miniflare = new Miniflare({
  cf: false,
  telemetry: { enabled: false },
  modules: true,
  scriptPath: here("worker.mjs"),
  compatibilityDate: "2026-01-01",
  bindings: { ACCOUNT, DATABASE, TOKEN },
  d1Databases: ["DB"],
});

let queue = [];
let calls = [];

const error = (code, message) => JSON.stringify({ success: false, errors: [{ code, message }], result: null });
const json = { "content-type": "application/json" };

// Each gets the fault, the response, and `ask`, which lets the database answer.
const faults = {
  // An answer of its own: {status, retry_after}. The statements are not run.
  status: async ({ status, retry_after }, response) => {
    const wait = retry_after === undefined ? {} : { "retry-after": String(retry_after) };
    response.writeHead(status, { ...json, ...wait }).end(error(status === 401 ? 10000 : 7500, "told to fail"));
  },
  // The true answer, {seconds} late.
  delay: async ({ seconds }, response, ask) => {
    await new Promise((done) => setTimeout(done, seconds * 1000));
    await send(response, await ask());
  },
  // No answer; the statements are not run.
  cut: async (_, response) => response.socket.destroy(),
  // No answer, but the statements are run.
  lost: async (_, response, ask) => {
    await ask();
    response.socket.destroy();
  },
  // The first half of the true answer, then the connection ends.
  half: async (_, response, ask) => {
    const { body } = await ask();
    response.writeHead(200, { ...json, "content-length": body.length });
    response.write(body.subarray(0, body.length / 2), () => response.socket.destroySoon());
  },
  // The whole length, but no JSON. The statements are run.
  bad_json: async (_, response, ask) => {
    await ask();
    response.writeHead(200, json).end('{"success":true,"result":[{');
  },
};

async function send(response, { status, body }) {
  response.writeHead(status, json).end(body);
}

async function control(name, body) {
  if (name === "calls") return calls;
  if (name === "sql") return (await query("/sql", "POST", {}, body)).body;
  if (name === "fault") {
    const fault = JSON.parse(body);
    if (!faults[fault.kind]) throw new Error(`no such fault: ${fault.kind}`);
    queue.push({ times: 1, ...fault });
  } else if (name === "reset") {
    queue = [];
    calls = [];
    await query("/sql", "POST", {}, JSON.stringify([{ sql: "DELETE FROM keys" }]));
  } else {
    throw new Error(`no such control: ${name}`);
  }
  return {};
}

async function query(path, method, headers, body) {
  const init = { method, headers, body: method === "GET" || method === "HEAD" ? undefined : body };
  const answer = await miniflare.dispatchFetch(`http://d1${path}`, init);
  return { status: answer.status, body: Buffer.from(await answer.arrayBuffer()) };
}

function nextFault() {
  const fault = queue[0];
  if (fault && --fault.times <= 0) queue.shift();
  return fault;
}

function sqlOf(body) {
  try {
    const parsed = JSON.parse(body);
    return (parsed.batch ?? [parsed]).map(({ sql }) => sql);
  } catch {
    return [];
  }
}

const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  try {
    if (request.url.startsWith("/control/")) {
      const result = await control(request.url.slice("/control/".length), body);
      response.writeHead(200, json).end(Buffer.isBuffer(result) ? result : JSON.stringify(result));
      return;
    }
    const call = { statements: sqlOf(body), status: null };
    calls.push(call);
    response.once("finish", () => (call.status = response.statusCode));
    const { authorization = "" } = request.headers;
    const ask = () => query(request.url, request.method, { authorization }, body);
    const fault = nextFault();
    await (fault ? faults[fault.kind](fault, response, ask) : send(response, await ask()));
  } catch (problem) {
    response.writeHead(500).end(String(problem.stack));
  }
});

const schema = readFileSync(here("../../envoy/d1/migrations/0001_keys.sql"), "utf8");
const statements = schema.replace(/--.*$/gm, "").split(";").map((sql) => sql.trim()).filter(Boolean);
const made = await query("/sql", "POST", {}, JSON.stringify(statements.map((sql) => ({ sql }))));
if (made.status !== 200) throw new Error(`the schema was refused: ${made.body}`);
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.resume().on("end", async () => {
  await miniflare.dispose();
  process.exit(0);
});
