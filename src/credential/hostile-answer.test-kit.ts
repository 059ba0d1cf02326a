/** What something that answers in an issuer's place may say; each is to end in an error of ours, by its code. */
export const hostileAnswers: readonly (readonly [what: string, answer: () => Response, code: string])[] = [
  ["a redirect", () => Response.redirect("https://evil.test/token", 307), "provider_failed"],
  ["a page", () => html(200), "provider_failed"],
  ["a page of an error", () => html(403), "provider_failed"],
  ["nothing", () => new Response(""), "provider_failed"],
  ["a list", () => Response.json([{ access_token: "planted" }]), "provider_failed"],
  ["a null", () => Response.json(null), "provider_failed"],
  ["a token that is a number", () => tokens(7), "provider_failed"],
  ["an empty token", () => tokens(""), "provider_failed"],
  ["a token of two lines", () => tokens("planted\r\nX-Evil: 1"), "provider_failed"],
  ["a token of a megabyte", () => tokens("planted".repeat(150_000)), "provider_failed"],
  ["a token that is too long", () => tokens("p".repeat(20_000)), "provider_failed"],
  [
    "an error that is an object",
    () => Response.json({ error: { a: [1] } }, { status: 400 }),
    "provider_failed",
  ],
  ["an endless body", () => new Response(endless()), "provider_failed"],
  ["a failure", () => html(503), "provider_unreachable"],
];

function tokens(token: unknown): Response {
  return Response.json({ access_token: token, accessToken: token, refresh_token: token, expires_in: 3600 });
}

function html(status: number): Response {
  return new Response("<html>planted</html>", { status, headers: { "Content-Type": "text/html" } });
}

function endless(): ReadableStream<Uint8Array> {
  return new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(16 * 1024).fill(32)) });
}
