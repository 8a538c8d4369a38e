// A dashboard's page, as small as it can be. It decodes by the encoding that it is told, shows how far a job is, and
// keeps what it saw.
import { Config, ConsolidationMode, Duration, QueryTarget, ReplyError, Session } from "@eclipse-zenoh/zenoh-ts";
import { decode, encode } from "cborg";

const FORMATS = {
  "application/json": (bytes) => JSON.parse(new TextDecoder().decode(bytes)),
  "application/cbor": (bytes) => decode(bytes),
};

const EVERY_NODE = { target: QueryTarget.ALL, consolidation: ConsolidationMode.NONE };

const LOOK_EVERY_MS = 200;
const DEADLINE_MS = 60_000;

/** Decodes a reply, a refusal or an event. */
function told(message) {
  const encoding = message.encoding().toString();
  const value = FORMATS[encoding](message.payload().toBytes());
  // From CBOR, integers that a number can't hold come as BigInt, which has no JSON.
  return { encoding, value: JSON.parse(JSON.stringify(value, (_, it) => (typeof it === "bigint" ? Number(it) : it))) };
}

/** Asks, and returns every reply. */
async function ask(session, selector, more = {}) {
  const replies = [];
  for await (const reply of await session.get(selector, { timeout: Duration.seconds.of(20), ...more })) {
    const result = reply.result();
    const isOk = !(result instanceof ReplyError);
    replies.push({ is_ok: isOk, key: isOk ? result.keyexpr().toString() : "", ...told(result) });
  }
  return replies;
}

/** Waits until `look` returns something. */
async function until(what, look) {
  for (const began = Date.now(); Date.now() - began < DEADLINE_MS; ) {
    const found = await look();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
  throw new Error(`not in time: ${what}`);
}

/** Asks one verb in each way in which a page may ask. */
async function everyForm(session, selector, fields) {
  const parameters = Object.entries(fields).map(([name, value]) => `${name}=${value}`);
  return {
    plain: await ask(session, `${selector}?${parameters.join(";")}`),
    cbor: await ask(session, `${selector}?${[...parameters, "format=cbor"].join(";")}`),
    json_payload: await ask(session, selector, { payload: JSON.stringify(fields), encoding: "application/json" }),
    cbor_payload: await ask(session, selector, { payload: encode(fields), encoding: "application/cbor" }),
  };
}

/** Starts a job and asks how it goes until it ends; returns what the page saw, in order. `onEvent` may step in. */
async function follow(session, root, request, onEvent = () => {}) {
  const seen = [];
  const subscriber = await session.declareSubscriber(`${root}/events/**`, {
    handler: (sample) => {
      const { value } = told(sample);
      seen.push({ from: "event", ...value });
      onEvent(value, seen);
      if (value.kind !== "job") return;
      const { chunks_done: done, chunks_total: total } = value.progress;
      document.querySelector("#progress").textContent = `${value.verb}: ${value.state}, ${done} of ${total} chunks`;
    },
  });
  const [started] = await ask(session, `${root}/${request};wait=0s`);
  seen.push({ from: "reply", ...started.value });
  await until("the job ends", async () => {
    const [jobs] = await ask(session, `${root}/jobs?job=${started.value.job}`);
    const [job] = jobs.value.jobs;
    seen.push({ from: "jobs", ...job });
    return ["done", "failed", "cancelled"].includes(job.state);
  });
  await until("the end is told", () => seen.some((it) => it.from === "event" && it.kind === "job" && it.state === "done"));
  await subscriber.undeclare();
  return { seen, shown: document.querySelector("#progress").textContent };
}

/** Follows an upload, holds it up when the first chunk is there, and lets it go on when it was seen to stand. */
async function followAndPause(session, root, request) {
  let isHeld = false;
  return follow(session, root, request, async ({ kind }, seen) => {
    if (kind !== "chunk_uploaded" || isHeld) return;
    isHeld = true;
    await ask(session, `${root}/pause`);
    let before = null;
    await until("the upload stands", async () => {
      const [jobs] = await ask(session, `${root}/jobs`);
      const [job] = jobs.value.jobs;
      seen.push({ from: "jobs", ...job });
      const stands = before === job.progress.chunks_done;
      before = job.progress.chunks_done;
      return stands;
    });
    await ask(session, `${root}/resume`);
  });
}

/** Does all of it, and returns what it found. */
window.run = async ({ websocket, machine, viewers }) => {
  const session = await Session.open(new Config(websocket));
  const root = `bubbaloop/${machine}/storage`;
  const found = { verbs: {} };
  await until("the node answers", async () => (await ask(session, `${root}/list`)).some((reply) => reply.is_ok));
  for (const verb of viewers) {
    found.verbs[verb] = await everyForm(session, `${root}/${verb}`, verb === "info" ? { recording: "drive" } : {});
  }
  found.refused = await everyForm(session, `${root}/info`, { recording: "driv" });
  found.fleet = await ask(session, "bubbaloop/*/storage/status", EVERY_NODE);
  found.nobody = await ask(session, "bubbaloop/nobody/storage/status");
  found.upload = await followAndPause(session, root, "upload?recording=drive");
  found.reconcile = await follow(session, root, "reconcile?recording=drive");
  await session.close();
  return found;
};
