import { describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { CodedError } from "../std/error.ts";
import type { IssuerFetch } from "./issuer.ts";
import { askForJson, readToken } from "./issuer-answer.ts";

class OwnError extends CodedError<"tls"> {
  override readonly name = "OwnError";
}

const url = "https://issuer.test/token?planted=1";
const now = (): number => 1_000_000;

/** An issuer that does one thing after the other, and the last for ever. */
function issuer(...steps: readonly (() => Response | Promise<Response>)[]): {
  readonly send: IssuerFetch;
  readonly seen: (RequestInit & { readonly url: string })[];
} {
  const seen: (RequestInit & { readonly url: string })[] = [];
  const send: IssuerFetch = async (asked, init) => {
    seen.push({ ...init, url: asked });
    const step = steps[Math.min(seen.length, steps.length) - 1];
    return (await step?.()) ?? new Response();
  };
  return { send, seen };
}

const ok = (): Response => Response.json({ access_token: "made", expires_in: 60 });
const status = (code: number) => (): Response => new Response("busy", { status: code });
const thrown = (error: Error) => (): Promise<Response> => Promise.reject(error);

describe("asking an issuer", () => {
  test.each([429, 503])("is done again after %p, twice", async (code) => {
    const { send, seen } = issuer(status(code), status(code), ok);
    const answer = await askForJson({ send, now }, { who: "Issuer", url, form: { a: "b c" } });
    expect(readToken({ send, now }, "Issuer", answer).expiresAt).toEqual(new Date(1_060_000));
    expect(seen.map(({ method, body }) => `${method} ${body}`)).toEqual(Array(3).fill("POST a=b+c"));
    const gone = issuer(status(code));
    await expect(askForJson({ send: gone.send, now }, { who: "Issuer", url })).rejects.toMatchObject({
      code: "provider_unreachable",
      message: `Issuer (issuer.test) gives no answer just now (${code})`,
    });
    expect(gone.seen).toHaveLength(3);
  });

  test.each([400, 401, 403, 404])("is not done again after %p, which is an answer", async (code) => {
    const { send, seen } = issuer(status(code), ok);
    const answer = await askForJson({ send, now }, { who: "Issuer", url });
    expect([answer.status, answer.json, seen.length]).toEqual([code, undefined, 1]);
  });

  test("is given up when there is no answer in time, with nothing of the URL but the host", async () => {
    const send: IssuerFetch = (_, init) =>
      new Promise((_resolve, reject) => {
        init.signal?.addEventListener("abort", () => reject(init.signal?.reason));
      });
    const error: unknown = await askForJson({ send, now }, { who: "Issuer", url, timeoutMs: 20 }).catch(
      (failure: unknown) => failure,
    );
    expect(error).toMatchObject({
      code: "provider_unreachable",
      message: "Issuer (issuer.test) cannot be reached: no answer in time",
    });
    expect(inspect(error, { depth: 9 })).not.toContain("planted");
  });

  test("repeats what our own errors say, and of others the errno alone", async () => {
    const own = issuer(thrown(new OwnError("tls", "the certificate of issuer.test has expired")));
    await expect(askForJson({ send: own.send, now }, { who: "Issuer", url })).rejects.toThrow(
      "cannot be reached: the certificate of issuer.test has expired",
    );
    const other = issuer(thrown(new Error(`cannot GET ${url}`)));
    await expect(askForJson({ send: other.send, now }, { who: "Issuer", url })).rejects.toThrow(
      /cannot be reached: connection failed$/,
    );
  });
});

describe("a token's life", () => {
  const lifeOf = (life: unknown): number | undefined => {
    const json = { access_token: "made", expires_in: life };
    const answer = { status: 200, headers: new Headers(), json, text: "" };
    const ends = readToken({ send: issuer().send, now }, "Issuer", answer).expiresAt;
    return ends === undefined ? undefined : (ends.getTime() - now()) / 1000;
  };

  test("is seconds, as a number or as text, and a week at most", () => {
    expect([3600, "3600", 0.5, 1e12].map(lifeOf)).toEqual([3600, 3600, 0.5, 7 * 24 * 3600]);
  });

  test("is not known when it is something else", () => {
    const others = [undefined, null, 0, -1, "soon", "-5", "1e9", "", true, [60], Number.NaN];
    expect(others.map(lifeOf)).toEqual(others.map(() => undefined));
  });
});
