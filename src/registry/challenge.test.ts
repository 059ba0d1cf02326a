import { expect, test } from "bun:test";
import { parseChallenges } from "./challenge.ts";

const plain = (field: string | null): unknown[] =>
  parseChallenges(field).map(({ scheme, token68, parameters }) => [
    scheme,
    token68 ?? Object.fromEntries(parameters),
  ]);

test.each([
  [null, []],
  ["", []],
  ["Basic", [["basic", {}]]],
  ['Basic realm="Amazon ECR"', [["basic", { realm: "Amazon ECR" }]]],
  [
    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
    [
      [
        "bearer",
        {
          realm: "https://auth.docker.io/token",
          service: "registry.docker.io",
          scope: "repository:a/b:pull,push",
        },
      ],
    ],
  ],
  [
    'Basic realm="a", Bearer realm="b" , service = c',
    [
      ["basic", { realm: "a" }],
      ["bearer", { realm: "b", service: "c" }],
    ],
  ],
  [
    "Negotiate abc+/==, NTLM, Basic realm=x",
    [
      ["negotiate", "abc+/=="],
      ["ntlm", {}],
      ["basic", { realm: "x" }],
    ],
  ],
  [',, Basic realm="say \\"hi\\", \\\\",', [["basic", { realm: 'say "hi", \\' }]]],
  [
    'Bearer realm="a",error="invalid_token",Basic realm="b"',
    [
      ["bearer", { realm: "a", error: "invalid_token" }],
      ["basic", { realm: "b" }],
    ],
  ],
  ['Bearer realm="a", realm="http://evil.com"', []],
  ['Basic realm="ok", Bearer realm="unterminated', [["basic", { realm: "ok" }]]],
  ['Bearer realm="a\nb"', []],
  [`Basic realm="${"x".repeat(9000)}"`, []],
  ["=", []],
] as [string | null, unknown[]][])("parses %p", (field, expected) => {
  expect(plain(field)).toEqual(expected);
});

test("ends in bounded time on any text", () => {
  for (const piece of ['a="', "a=", "a ", ", ,", '\\"', "a,b=c,", "==", 'x="y",']) {
    const started = performance.now();
    parseChallenges(piece.repeat(Math.floor(8000 / piece.length)));
    expect(performance.now() - started).toBeLessThan(250);
  }
});
