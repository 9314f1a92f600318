// The `openai` npm client, unchanged: prints one JSON object of what it got.
import { createRequire } from "node:module";
const OpenAI = createRequire(process.env.CLIENT_DIR + "/package.json")("openai").default;

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY, maxRetries: 0 });
const messages = [{ role: "user", content: "What is 6 * 7?" }];
const parameters = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

const whole = await client.chat.completions.create({ model: "market:math", messages });
let streamed = "";
for await (const chunk of await client.chat.completions.create({ model: "market:math", messages, stream: true }))
  streamed += chunk.choices[0]?.delta?.content ?? "";
const tools = await client.chat.completions.create({
  model: "market",
  messages: [{ role: "user", content: "Use get_weather for Rome." }],
  tools: [{ type: "function", function: { name: "get_weather", parameters, strict: true } }],
});
const response = await client.responses.create({ model: "market:math", input: "What is 6 * 7?" });
const kinds = [];
for await (const event of await client.responses.create({ model: "market:math", input: "Hi", stream: true }))
  kinds.push(event.type);
const vectors = await client.embeddings.create({ model: "text-embedding-3-small", input: ["a", "b"] });
let refused = "";
try {
  await client.chat.completions.create({ model: "no-such-model", messages });
} catch (error) {
  refused = `${error.constructor.name} ${error.status} ${error.code}`;
}
console.log(
  JSON.stringify({
    whole: whole.choices[0].message.content,
    streamed,
    tool: tools.choices[0].message.tool_calls[0].function.name,
    response: response.output_text,
    last: kinds.at(-1),
    vectors: vectors.data.map((d) => d.embedding.length),
    refused,
  }),
);
