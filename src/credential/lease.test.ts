import { expect, test } from "bun:test";
import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { ManualClock, settle } from "./lease.test-kit.ts";
import { Lease, type LeaseOptions, type LeaseTerm } from "./lease.ts";
import { anonymousProvider, type CredentialProvider, type RegistryAuthorization } from "./provider.ts";

const minute = 60_000;
const away = new Error("the scheduler does not answer");
const no = new CredentialError("provider_failed", "the registry refuses the secret");

function fixed(authorization: RegistryAuthorization): CredentialProvider {
  const authorize = async () => authorization;
  return { registry: "r", type: "token", fingerprint: "f", renewable: false, authorization: authorize };
}

function bearer(name: string, validForMs?: number): LeaseTerm {
  const authorization = { kind: "bearer" as const, token: new Redacted(name) };
  return { provider: fixed(authorization), ...(validForMs === undefined ? {} : { validForMs }) };
}

const absent: LeaseTerm = {
  provider: anonymousProvider("r"),
  absentReason: "the image's secret is gone",
};

/** A lease of five-minute terms named 1, 2, … by a scheduler that can be away. */
function scene(options: Partial<LeaseOptions> & { lifeMs?: number } = {}) {
  const clock = new ManualClock();
  const { lifeMs = 5 * minute } = options;
  const state = { asked: [] as boolean[], failing: undefined as unknown, gate: undefined as unknown };
  const lease = new Lease({
    first: bearer("0", lifeMs),
    ask: async (refused) => {
      state.asked.push(refused);
      await state.gate;
      if (state.failing !== undefined) throw state.failing;
      return bearer(String(state.asked.length), lifeMs);
    },
    keptUp: () => true,
    clock,
    ...options,
  });
  const token = async (refused = false) => {
    const authorization = await lease.authorization(undefined, refused);
    return authorization.kind === "bearer" ? authorization.token.expose() : authorization.kind;
  };
  return { clock, lease, state, token };
}

test("a term serves until after half of its life, then the next, by the clock alone", async () => {
  const { clock, state, token } = scene();
  await clock.pass(2.4 * minute);
  expect([await token(), state.asked]).toEqual(["0", []]);
  await clock.pass(0.2 * minute);
  expect([await token(), state.asked]).toEqual(["1", [false]]);
  await clock.pass(24 * 60 * minute);
  expect(state.asked.length).toBe(Math.floor((24 * 60 + 2.6) / (2.5 * 0.975)));
});

test.each([0, 1, -60_000])("a life of %d ms does not make a lease ask all the time", async (lifeMs) => {
  const { clock, state, token } = scene({ lifeMs });
  await clock.pass(minute);
  expect(state.asked.length).toBeLessThanOrEqual(62);
  expect(await token()).toBe(String(state.asked.length));
  expect(state.asked.length).toBeLessThanOrEqual(63);
});

test("renewals of leases that began together spread over what comes before half of a life", async () => {
  const times = [0, 1].map((random) => {
    const clock = new ManualClock(() => random);
    const at: number[] = [];
    const ask = async () => {
      at.push(clock.now());
      return bearer("1", 100 * minute);
    };
    new Lease({ first: bearer("0", 100 * minute), ask, keptUp: () => true, clock });
    return { clock, at };
  });
  for (const { clock } of times) await clock.pass(60 * minute);
  expect(times.map(({ at }) => at)).toEqual([[50 * minute], [47.5 * minute]]);
});

test("what needs nothing more is not renewed by the clock, but when somebody asks", async () => {
  const { clock, state, token } = scene({ keptUp: () => false });
  await clock.pass(60 * minute);
  expect(state.asked).toEqual([]);
  expect(await token()).toBe("1");
});

test("in the second half of its life the old term serves while the next is asked for", async () => {
  const gate = Promise.withResolvers<void>();
  const { clock, state, token } = scene();
  state.gate = gate.promise;
  await clock.pass(4 * minute);
  expect(await token()).toBe("0");
  gate.resolve();
  await settle();
  expect(await token()).toBe("1");
  expect(state.asked).toHaveLength(1);
});

test("however many wait, one exchange is made, after the end as after a refusal", async () => {
  const { clock, state, token } = scene({ keptUp: () => false });
  await clock.pass(10 * minute);
  const late = await Promise.all(Array.from({ length: 1000 }, () => token()));
  expect([new Set(late), state.asked]).toEqual([new Set(["1"]), [false]]);
  const refused = await Promise.all([token(true), ...Array.from({ length: 1000 }, () => token())]);
  expect([new Set(refused), state.asked]).toEqual([new Set(["2"]), [false, true]]);
});

test("a scheduler that is away for less than half of a life is not noticed", async () => {
  const { clock, state, token } = scene();
  await clock.pass(2.4 * minute);
  state.failing = away;
  for (let passed = 0; passed < 2.5; passed += 0.1) {
    await clock.pass(0.1 * minute);
    expect(await token()).toBe("0");
  }
  state.failing = undefined;
  await clock.pass(0.1 * minute);
  expect(Number(await token())).toBe(state.asked.length);
});

test("one that is away for longer fails requests by name, after some patience, and the lease recovers", async () => {
  const failures: unknown[] = [];
  const { clock, state, token } = scene({ onFailure: (thrown) => failures.push(thrown) });
  state.failing = new Error("the scheduler hangs up");
  await clock.pass(3 * minute);
  state.failing = away;
  await clock.pass(7 * minute);
  const read = token().catch((error: unknown) => error);
  await clock.pass(19_000);
  expect(await Promise.race([read, settle()])).toBeUndefined();
  await clock.pass(1_000);
  expect(await read).toBe(away);
  expect(failures.map(String)).toEqual(["Error: the scheduler hangs up"]);
  const waits = token();
  state.failing = undefined;
  await clock.pass(5_000);
  expect(Number(await waits)).toBe(state.asked.length);
});

test("a request that leaves does not end the exchange that others wait for", async () => {
  const gate = Promise.withResolvers<void>();
  const { lease, state, token } = scene({ first: undefined });
  state.gate = gate.promise;
  const impatient = new AbortController();
  const [leaves, stays] = [lease.authorization(impatient.signal), token()];
  impatient.abort(new Error("too late"));
  await expect(leaves).rejects.toThrow("too late");
  gate.resolve();
  expect(await stays).toBe("1");
});

test("an answer is final: it is told again without asking, for a while", async () => {
  const { clock, state, token } = scene({ first: undefined });
  state.failing = no;
  for (let reads = 0; reads < 3; reads += 1) await expect(token()).rejects.toBe(no);
  expect(state.asked).toHaveLength(1);
  state.failing = undefined;
  await clock.pass(10_000);
  expect(await token()).toBe("2");
});

test("a refusal is asked for once in a while, not at every read", async () => {
  const { clock, state, token } = scene();
  expect(await token(true)).toBe("1");
  expect([await token(true), await token(true)]).toEqual(["1", "1"]);
  expect(state.asked).toEqual([true]);
  await clock.pass(10_000);
  expect(await token(true)).toBe("2");
});

test("a refusal while the next term is on its way counts for that one too: it may be the same", async () => {
  const gate = Promise.withResolvers<void>();
  const { clock, state, token } = scene();
  state.gate = gate.promise;
  await clock.pass(2.6 * minute);
  expect(state.asked).toEqual([false]);
  const read = token(true);
  gate.resolve();
  expect(await read).toBe("2");
  expect(state.asked).toEqual([false, true]);
});

test("a term without an end is asked anew only when it is refused", async () => {
  const { clock, state, token } = scene({ first: bearer("sealed") });
  await clock.pass(1000 * 60 * minute);
  expect([await token(), state.asked]).toEqual(["sealed", []]);
  expect(await token(true)).toBe("1");
});

test("a credential with an issuer is renewed there, without the scheduler, unless that does not help", async () => {
  const issued: boolean[] = [];
  let issuerRefuses = false;
  const provider: CredentialProvider = {
    ...fixed({ kind: "anonymous" }),
    type: "aws",
    renewable: true,
    authorization: async (_, options) => {
      issued.push(options?.refresh === true);
      if (issuerRefuses) throw new CredentialError("expired", "the keys have expired");
      return { kind: "bearer", token: new Redacted(`issued ${issued.length}`) };
    },
  };
  const { clock, state, token } = scene({ first: { provider } });
  state.failing = away;
  expect([await token(), await token(true)]).toEqual(["issued 1", "issued 2"]);
  expect([issued, state.asked]).toEqual([[false, true], []]);
  state.failing = undefined;
  expect(await token(true)).toBe("1");
  expect(state.asked).toEqual([true]);
  const other = scene({ first: { provider } });
  issuerRefuses = true;
  expect(await other.token(true)).toBe("1");
  await clock.pass(0);
});

test("a secret that is gone refuses what began with it, at once, until there is one again", async () => {
  let next: LeaseTerm = absent;
  const { clock, token } = scene({ ask: async () => next });
  await clock.pass(2.6 * minute);
  await expect(token()).rejects.toThrow("the image's secret is gone: there is no credential for r any more");
  next = bearer("again", minute);
  await clock.pass(11_000);
  expect(await token()).toBe("again");
});

test("what began without goes on without, and hears why when the registry wants more", async () => {
  const { token } = scene({ first: absent, ask: async () => absent });
  expect(await token()).toBe("anonymous");
  await expect(token(true)).rejects.toThrow("r wants a credential, but the image's secret is gone");
  expect(await token()).toBe("anonymous");
});

test("a lease that has ended gives out nothing, asks nothing, and lets nobody wait", async () => {
  const gate = Promise.withResolvers<void>();
  const { clock, lease, state, token } = scene({ first: undefined });
  state.gate = gate.promise;
  const waits = token().catch((error: unknown) => error);
  lease.end();
  expect(await waits).toMatchObject({ code: "expired" });
  gate.resolve();
  await clock.pass(60 * minute);
  await expect(token()).rejects.toMatchObject({ code: "expired" });
  expect(state.asked).toHaveLength(1);
});

test("what was refused while nobody can be asked is tried again after some patience, until its end", async () => {
  const { clock, state, token } = scene({ patienceMs: 10_000 });
  state.failing = away;
  const refused = token(true);
  await clock.pass(9_000);
  const reading = token();
  await clock.pass(1_100);
  expect(await refused).toBe("0");
  await clock.pass(9_000);
  expect(await reading).toBe("0");
  expect(await token()).toBe("0");
  state.failing = undefined;
  await clock.pass(2.5 * minute);
  expect(await token()).not.toBe("0");
});
