// Real Node SDKs against one target. One line of JSON per check: {check, error}; the environment says
// where: BASE_URL, AUTH_KEY, TIGHT_KEY, MODEL, and models that go wrong: LIMITED_MODEL, ROTATING_MODEL,
// REFUSED_MODEL.

import assert from "node:assert/strict";

import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { APICallError, generateText, isStepCount, Output, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const { AUTH_KEY, BASE_URL, LIMITED_MODEL, MODEL, REFUSED_MODEL, ROTATING_MODEL, TIGHT_KEY, UNSERVED_MODEL } =
  process.env;
const HELLO = [{ role: "user", content: "Hello" }];
const SAID = `Hello from the provider simulator, in the role of ${MODEL.slice(MODEL.indexOf("/") + 1)}.`;
const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const CITY = { name: "text", districts: ["text"] };
const CITY_SCHEMA = z.object({ name: z.string(), districts: z.array(z.string()) });
const NAMES = ["weather", "clock"];
const PARAMETERS = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const TOOLS = NAMES.map((name) => ({ type: "function", function: { name, parameters: PARAMETERS } }));

const openai = (apiKey = AUTH_KEY) => new OpenAI({ apiKey, baseURL: BASE_URL, maxRetries: 0 });
const provider = (apiKey = AUTH_KEY) =>
  createOpenAICompatible({
    name: "one-balance",
    apiKey,
    baseURL: BASE_URL,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });
const vercel = (fields = {}) => ({ model: provider()(MODEL), prompt: "Hello", maxRetries: 0, ...fields });

/** The error that a call fails with. */
async function failure(call) {
  try {
    await call();
  } catch (error) {
    return error;
  }
  return assert.fail("it did not fail");
}

/** A limit's error says how long to wait. */
function assertWait(value) {
  assert.ok(Number(value) > 0 && Number(value) <= 60, `retry-after: ${value}`);
}

const checks = {
  async "openai chat"() {
    const answer = await openai().chat.completions.create({ model: MODEL, messages: HELLO });
    assert.equal(answer.choices[0].message.content, SAID);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.usage.prompt_tokens, 9);
  },

  async "openai stream"() {
    const options = { model: MODEL, messages: HELLO, stream_options: { include_usage: true } };
    const chunks = [];
    const stream = openai().chat.completions.stream(options);
    for await (const chunk of stream) chunks.push(chunk);
    const last = chunks.pop();
    assert.deepEqual([last.choices, last.usage.prompt_tokens], [[], 9]);
    assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), SAID);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
    assert.equal((await stream.finalChatCompletion()).choices[0].message.content, SAID);
  },

  async "openai tools"() {
    const ran = [];
    const tools = NAMES.map((name) => ({
      type: "function",
      function: { name, parameters: PARAMETERS, parse: JSON.parse, function: ({ city }) => ran.push([name, city]) },
    }));
    const runner = openai().chat.completions.runTools({ model: MODEL, messages: HELLO, tools });
    assert.equal(await runner.finalContent(), SAID);
    assert.deepEqual(ran, [["weather", "text"], ["clock", "text"]]);
  },

  async "openai streamed tools"() {
    const options = { model: MODEL, messages: HELLO, tools: TOOLS };
    const { message, finish_reason } = (await openai().chat.completions.stream(options).finalChatCompletion()).choices[0];
    assert.equal(finish_reason, "tool_calls");
    assert.deepEqual(message.tool_calls.map((call) => call.function.name), NAMES);
    const results = message.tool_calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: "{}" }));
    const answer = await openai().chat.completions.create({ ...options, messages: [...HELLO, message, ...results] });
    assert.equal(answer.choices[0].message.content, SAID);
  },

  async "openai image"() {
    const image = { type: "image_url", image_url: { url: `data:image/png;base64,${PNG}` } };
    const content = [{ type: "text", text: "What is it?" }, image];
    const answer = await openai().chat.completions.create({ model: MODEL, messages: [{ role: "user", content }] });
    assert.equal(answer.choices[0].message.content, SAID);
  },

  async "openai schema"() {
    const schema = { ...z.toJSONSchema(CITY_SCHEMA), additionalProperties: false };
    const response_format = { type: "json_schema", json_schema: { name: "city", schema, strict: true } };
    const answer = await openai().chat.completions.create({ model: MODEL, messages: HELLO, response_format });
    assert.deepEqual(JSON.parse(answer.choices[0].message.content), CITY);
  },

  async "openai errors"() {
    const ask = (model, key) => failure(() => openai(key).chat.completions.create({ model, messages: HELLO }));
    assert.ok((await ask(MODEL, "wrong-key-1234")) instanceof OpenAI.AuthenticationError);
    assert.ok((await ask(MODEL, TIGHT_KEY)) instanceof OpenAI.PermissionDeniedError);
    assert.ok((await ask(REFUSED_MODEL)) instanceof OpenAI.BadRequestError);
    const unserved = await ask(UNSERVED_MODEL);
    assert.ok(unserved instanceof OpenAI.InternalServerError);
    assert.deepEqual([unserved.status, unserved.code], [503, "no_keys"]);
    const limited = await ask(LIMITED_MODEL);
    assert.ok(limited instanceof OpenAI.RateLimitError);
    assertWait(limited.headers.get("retry-after"));
  },

  async "openai rotation"() {
    const answer = await openai().chat.completions.create({ model: `${ROTATING_MODEL}-1`, messages: HELLO });
    assert.ok(answer.choices[0].message.content);
  },

  async "ai chat"() {
    const { finishReason, text, usage } = await generateText(vercel());
    assert.deepEqual([text, finishReason, usage.inputTokens], [SAID, "stop", 9]);
  },

  async "ai stream"() {
    const result = streamText(vercel());
    const pieces = [];
    for await (const piece of result.textStream) pieces.push(piece);
    assert.ok(pieces.length > 5);
    assert.equal(pieces.join(""), SAID);
    assert.equal(await result.finishReason, "stop");
    assert.equal((await result.usage).inputTokens, 9);
  },

  async "ai tools"() {
    const { steps, text } = await generateText(vercel(vercelTools()));
    assert.equal(text, SAID);
    assert.deepEqual(steps[0].toolCalls.map((call) => [call.toolName, call.input]), NAMES.map((name) => [name, { city: "text" }]));
  },

  async "ai streamed tools"() {
    const result = streamText(vercel(vercelTools()));
    assert.equal(await result.text, SAID);
    assert.equal((await result.steps)[0].finishReason, "tool-calls");
  },

  async "ai image"() {
    const image = { type: "file", mediaType: "image/png", data: Buffer.from(PNG, "base64") };
    const content = [{ type: "text", text: "What is it?" }, image];
    const { text } = await generateText(vercel({ prompt: undefined, messages: [{ role: "user", content }] }));
    assert.equal(text, SAID);
  },

  async "ai schema"() {
    const { output } = await generateText(vercel({ output: Output.object({ schema: CITY_SCHEMA }) }));
    assert.deepEqual(output, CITY);
  },

  async "ai errors"() {
    const ask = async (model, key) => {
      const error = await failure(() => generateText(vercel({ model: provider(key)(model) })));
      assert.ok(APICallError.isInstance(error), String(error));
      return error;
    };
    assert.equal((await ask(MODEL, "wrong-key-1234")).statusCode, 401);
    assert.equal((await ask(MODEL, TIGHT_KEY)).statusCode, 403);
    assert.equal((await ask(REFUSED_MODEL)).statusCode, 400);
    assert.equal((await ask(UNSERVED_MODEL)).statusCode, 503);
    const limited = await ask(LIMITED_MODEL);
    assert.equal(limited.statusCode, 429);
    assertWait(limited.responseHeaders["retry-after"]);
  },

  async "ai rotation"() {
    const { text } = await generateText(vercel({ model: provider()(`${ROTATING_MODEL}-2`) }));
    assert.ok(text);
  },
};

function vercelTools() {
  const one = tool({ inputSchema: z.object({ city: z.string() }), execute: async () => ({ ok: true }) });
  return { tools: Object.fromEntries(NAMES.map((name) => [name, one])), stopWhen: isStepCount(2) };
}

for (const [check, run] of Object.entries(checks)) {
  let error = null;
  try {
    await run();
  } catch (thrown) {
    error = String(thrown.stack ?? thrown);
  }
  console.log(JSON.stringify({ check, error }));
}
