import { randomBytes } from "node:crypto";
import type { QuirkNet } from "./quirk-net.ts";

/** Something that was issued: to whom, for what, until when. */
export interface Grant {
  readonly subject: string;
  readonly scopes: readonly string[];
  readonly endsAtMs: number;
}

export interface IssueRules {
  readonly lifeSeconds: number;
  /** A JWT says its end itself. */
  readonly form: "opaque" | "jwt";
  /** Where it may be seen. */
  readonly hosts: readonly string[];
}

/** What one issuer has issued, on the clock of its net. Each value is planted there, so that a stray one is found. */
export class QuirkTokens {
  readonly #net: QuirkNet;
  readonly #name: string;
  readonly #grants = new Map<string, Grant>();

  constructor(net: QuirkNet, name: string) {
    this.#net = net;
    this.#name = name;
  }

  get count(): number {
    return this.#grants.size;
  }

  issue(subject: string, scopes: readonly string[], rules: IssueRules): string {
    const endsAtMs = this.#net.now() + rules.lifeSeconds * 1000;
    const value = rules.form === "jwt" ? jwt({ sub: subject, exp: Math.floor(endsAtMs / 1000) }) : opaque();
    this.#grants.set(value, { subject, scopes, endsAtMs });
    this.#net.plant(`${this.#name} ${this.#grants.size}`, value, rules.hosts);
    return value;
  }

  find(value: string): Grant | "unknown" | "expired" {
    const grant = this.#grants.get(value);
    if (grant === undefined) return "unknown";
    return this.#net.now() < grant.endsAtMs ? grant : "expired";
  }
}

/** Unsigned in all but looks: only who issued it reads it. */
export function jwt(claims: object): string {
  const parts = [
    { typ: "JWT", alg: "RS256" },
    { ...claims, jti: opaque() },
  ];
  const body = parts.map((part) => Buffer.from(JSON.stringify(part)).toString("base64url")).join(".");
  return `${body}.${randomBytes(32).toString("base64url")}`;
}

function opaque(): string {
  return randomBytes(24).toString("hex");
}
