import { afterAll, beforeAll, describe, test } from "bun:test";
import { join } from "node:path";
import type { DescField, DescMessage, DescMethod, DescService } from "@bufbuild/protobuf";
import { ScalarType } from "@bufbuild/protobuf";
import { hasHiddenCharacter } from "../../src/std/printable.ts";
import { contextOf, type RawAnswer, type RawCall, rawCaller } from "../kit/raw-call.ts";
import { callMethod } from "../kit/services.ts";
import { World } from "../kit/world.ts";

/** Stands in every hostile value; no answer may have it. */
const canary = "canary5f1e";
let world: World;
let callers: readonly RawCall[];
let raw: RawCall;

beforeAll(async () => {
  world = await World.start();
  raw = await rawCaller(world.node);
  const { admin_token: admin } = await contextOf(world.node);
  callers = [raw, ...(admin === undefined ? [] : [await rawCaller(world.node, admin)])];
});
afterAll(() => world.stop());

/** Whatever was wrong, this is how it may be said. */
function assertClear(answer: RawAnswer, what: string): void {
  const problems = [
    ["internal", "unknown", "data_loss"].includes(answer.code ?? "") && "an unexpected failure",
    answer.status >= 500 && ![501, 503].includes(answer.status) && "a failure of the server",
    answer.status !== 200 && answer.message.trim() === "" && "no message",
    answer.code !== undefined && answer.text.length > 16 * 1024 && "a message without end",
    /\n\s+at /.test(answer.message) && "a stack",
    answer.code !== undefined && hasHiddenCharacter(answer.message) && "characters that do not show",
  ].filter((problem) => problem !== false);
  if (problems.length > 0) throw new Error(`${what}: ${problems.join(", ")}: ${answer.text.slice(0, 500)}`);
}

const services: DescService[] = [];
for (const file of new Bun.Glob("*_pb.ts").scanSync(join(import.meta.dir, "../../src/gen/oci_node/v1"))) {
  const exported = Object.values(await import(`../../src/gen/oci_node/v1/${file}`)) as { kind?: string }[];
  services.push(...(exported.filter(({ kind }) => kind === "service") as DescService[]));
}
const methods: DescMethod[] = services.flatMap((service) => service.methods);

const texts = [
  "",
  "\0",
  `a\0${canary}`,
  "\u001b[2J\u0007",
  "\u202etxt.exe",
  "a\u2028b",
  "ä漢🦀",
  "'; drop table secrets; --",
  "../../../etc/passwd",
  "%00%0a",
  "-",
  "--help",
  "A B",
  "x".repeat(300),
  "x".repeat(1024 * 1024),
  "00000000-0000-0000-0000-000000000000",
  "img-000000000000000000000000",
  "c-0000000000000000",
];
const integers = [-1, 2147483647, -2147483648];
const longs = ["-1", "9223372036854775807", "-9223372036854775808"];

/** JSON for a field that is nothing that anybody should send; what a type cannot hold at all is decoded nowhere. */
function hostileValues(field: DescField): readonly unknown[] {
  if (field.fieldKind === "map") return texts.flatMap((text) => [{ [text]: "v" }, { KEY: text }]);
  if (field.fieldKind === "list") return [texts, [[]], Array.from({ length: 5000 }, () => "x")];
  if (field.fieldKind === "enum") return [99, -1, canary];
  if (field.fieldKind !== "scalar") return [canary, [], 1, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"];
  if (field.scalar === ScalarType.STRING) return [...texts, 1, null, { a: canary }];
  if (field.scalar === ScalarType.BOOL) return [canary];
  return [ScalarType.INT64, ScalarType.UINT64].includes(field.scalar) ? longs : integers;
}

/** A body that gets further than an empty one, and harms nothing. */
function bodyOf(method: DescMethod): Record<string, unknown> {
  const known: Record<string, unknown> = {
    registry: "127.0.0.1:1",
    reference: "127.0.0.1:1/a:1",
    image: "127.0.0.1:1/a:1",
    credentials: { USERNAME: "u", PASSWORD: "p" },
    unchecked: true,
    url: "https://127.0.0.1:1/",
  };
  return Object.fromEntries(
    method.input.fields.flatMap(({ jsonName }) => (jsonName in known ? [[jsonName, known[jsonName]]] : [])),
  );
}

type Place = readonly [field: DescField, bodyWith: (value: unknown) => object];

/** Every field of a message and of those in it, and the body with a value just there. */
function placesIn(message: DescMessage, inside: (value: object) => object = (value) => value): Place[] {
  return message.fields.flatMap((field): Place[] => {
    const bodyWith = (value: unknown) => inside({ [field.jsonName]: value });
    const listed = field.fieldKind === "list";
    const below = field.fieldKind === "message" || listed ? field.message : undefined;
    const more =
      below === undefined || below.typeName.startsWith("google.")
        ? []
        : placesIn(below, (value) => bodyWith(listed ? [value] : value));
    return [[field, bodyWith], ...more];
  });
}

/** Where both talk at once, which goes over HTTP/2 alone, the fields are those of the first message. */
async function tryBothWays(method: DescMethod): Promise<void> {
  const { token } = await contextOf(world.node);
  for (const [field, bodyWith] of placesIn(method.input))
    for (const value of hostileValues(field)) {
      const { code, text } = await callMethod(world.node.url, token, method, bodyWith(value));
      const what = `${field.name} = ${JSON.stringify(value)?.slice(0, 40)}`;
      const failed = code === "ok" ? undefined : code;
      // The lines below it are its details, as bytes.
      const [message = ""] = text.split("\n");
      assertClear({ status: 200, text, code: failed, message, next: undefined }, what);
      if (text.includes(canary)) throw new Error(`${what}: the value is in the answer: ${text}`);
    }
}

describe("every method of the API answers whatever is in any of its fields clearly:", () => {
  for (const method of methods) {
    const path = `${method.parent.name}/${method.name}`;
    // These would do what they are asked for, or belong to other servers.
    if (/^(WorkerService|SchedulerService|JoinService)\//.test(path) || path === "KeyService/RotateKey")
      continue;
    test(path, async () => {
      if (method.methodKind === "bidi_streaming") return await tryBothWays(method);
      const streams = method.methodKind !== "unary";
      for (const call of callers) {
        for (const [field, bodyWith] of placesIn(method.input)) {
          const isReference = ["reference", "registry"].includes(field.name) && method.name === "BuildImage";
          for (const value of hostileValues(field)) {
            // What is a name on Docker Hub would be looked for there.
            if (isReference && typeof value === "string" && /^[a-z0-9-]+$/.test(value)) continue;
            const answer = await call(path, { ...bodyOf(method), ...bodyWith(value) }, { streams });
            const shown = JSON.stringify(value)?.slice(0, 40);
            assertClear(answer, `${field.name} = ${shown}`);
            if (answer.text.includes(canary) && answer.code !== undefined)
              throw new Error(`${field.name} = ${shown}: the value is in the answer: ${answer.text}`);
          }
        }
      }
    });
  }
});
