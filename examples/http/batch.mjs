// A batch through the official OpenAI SDK for Node: only the base URL is Understudy's.
//
//     npm install openai
//     node batch.mjs lines.jsonl        (lines of OpenAI's batch input)
import fs from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import OpenAI from "openai";

const server = process.env.UNDERSTUDY_URL ?? "http://127.0.0.1:8080";
const client = new OpenAI({ baseURL: `${server}/v1`, apiKey: "not needed on this machine until a key is created" });
const file = await client.files.create({ file: fs.createReadStream(process.argv[2]), purpose: "batch" });
let batch = await client.batches.create({ input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" });
while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
  await pause(1000);
  batch = await client.batches.retrieve(batch.id);
  if (batch.errors && batch.status === "in_progress") throw new Error(batch.errors.data[0].message); // it waits for you
}
console.error(batch.id, batch.status, batch.request_counts);
for (const id of [batch.output_file_id, batch.error_file_id].filter(Boolean)) {
  process.stdout.write(await (await client.files.content(id)).text());
}
