// The official client against a server of ours: one check a line on standard
// output, "ok NAME" or "failed NAME: why".
// usage: node client.cjs FOLDER-OF-NODE_MODULES BASE-URL
"use strict";

const { createRequire } = require("module");
const assert = require("assert");

const [, , folder, baseURL] = process.argv;
const OpenAI = createRequire(folder + "/")("openai");
const client = new OpenAI({ baseURL, apiKey: "unused-key", timeout: 60000 });
const question = {
  model: "lambkin",
  messages: [{ role: "user", content: "What is the capital of Norway?" }],
};

const checks = {
  async chat() {
    const reply = await client.chat.completions.create(question);
    assert.match(reply.choices[0].message.content, /Oslo/);
    assert.equal(reply.choices[0].message.role, "assistant");
    assert.equal(reply.choices[0].finish_reason, "stop");
    assert.ok(reply.usage.total_tokens > reply.usage.prompt_tokens);
    assert.ok(reply._request_id);
  },

  async stream_with_usage() {
    const stream = await client.chat.completions.create({
      ...question, stream: true, stream_options: { include_usage: true },
    });
    let text = "", usage = null, chunks = 0, finish = null;
    const ids = new Set(), models = new Set();
    for await (const chunk of stream) {
      chunks++;
      ids.add(chunk.id);
      models.add(chunk.model);
      text += chunk.choices[0]?.delta?.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
      if (chunk.choices.length === 0) usage = chunk.usage;
      else assert.strictEqual(chunk.usage, null);
    }
    assert.match(text, /Oslo/);
    assert.equal(finish, "stop");
    assert.ok(usage && usage.completion_tokens > 0, "no usage at the end");
    assert.ok(chunks > 3);
    assert.equal(ids.size, 1);
    assert.equal(models.size, 1);
  },

  async stream_without_usage() {
    const stream = await client.chat.completions.create({
      ...question, stream: true,
    });
    for await (const chunk of stream) {
      assert.ok(!chunk.usage);
      assert.equal(chunk.choices.length, 1);
    }
  },

  async models_list() {
    const names = [];
    for await (const model of client.models.list()) names.push(model.id);
    assert.deepEqual(names, ["lambkin"]);
    assert.equal((await client.models.retrieve("lambkin")).id, "lambkin");
  },

  async unknown_model() {
    const e = await failure({ ...question, model: "no-such-model" });
    assert.ok(e instanceof OpenAI.NotFoundError, String(e));
    assert.equal(e.code, "model_not_found");
    assert.equal(e.status, 404);
    await assert.rejects(client.models.retrieve("no-such-model"),
                         OpenAI.NotFoundError);
  },

  async bad_json() {
    await assert.rejects(
      client.post("/chat/completions", {
        body: Buffer.from("{\"model\": "),
        headers: { "content-type": "application/json" },
      }), OpenAI.BadRequestError);
  },

  async wrong_types() {
    const e = await failure({ ...question, messages: "hi" });
    assert.ok(e instanceof OpenAI.BadRequestError, String(e));
    assert.equal(e.param, "messages");
    const f = await failure({ ...question, temperature: "hot" });
    assert.ok(f instanceof OpenAI.BadRequestError, String(f));
    assert.equal(f.param, "temperature");
  },

  async abort_in_mid_stream() {
    const stream = await client.chat.completions.create({
      ...question, stream: true,
      messages: [{ role: "user",
                   content: "Tell me a short story about a brave fox." }],
    });
    let seen = 0;
    for await (const chunk of stream) {
      assert.ok(chunk);
      if (++seen === 3) break;          // aborts the request
    }
    const reply = await client.chat.completions.create(question);
    assert.match(reply.choices[0].message.content, /Oslo/);
  },

  async sixty_four_at_once() {
    const direct = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0,
                                timeout: 120000 });
    const replies = await Promise.all(Array.from({ length: 64 }, () =>
      direct.chat.completions.create({ ...question, max_tokens: 16 })));
    for (const reply of replies)
      assert.match(reply.choices[0].message.content, /Oslo/);
  },
};

async function failure(body) {
  try {
    await client.chat.completions.create(body);
  } catch (e) {
    return e;
  }
  throw new Error("it was answered");
}

(async () => {
  for (const [name, check] of Object.entries(checks)) {
    try {
      await check();
      console.log("ok " + name);
    } catch (e) {
      console.log("failed " + name + ": " + String(e.stack).replace(/\n/g, " | "));
    }
  }
})();
