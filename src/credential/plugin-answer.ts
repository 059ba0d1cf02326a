import { z } from "zod";
import { Redacted } from "../std/redacted.ts";
import { matchesImage, parseImagePattern } from "./plugin-match.ts";

/** Versions of the protocol; they differ in their names only. */
export const pluginApiVersions = [
  "credentialprovider.kubelet.k8s.io/v1",
  "credentialprovider.kubelet.k8s.io/v1beta1",
  "credentialprovider.kubelet.k8s.io/v1alpha1",
] as const;

export type PluginApiVersion = (typeof pluginApiVersions)[number];

/** A credential of an answer, under the images that it is for. */
export interface PluginAuth {
  readonly username: string;
  readonly password: Redacted<string>;
}

export interface PluginAnswer {
  /** For what the whole answer is good: this image, all of its registry, or whatever is asked. */
  readonly cacheKeyType: "Image" | "Registry" | "Global";
  /** Undefined: the plugin does not say; 0: it is not to be kept. */
  readonly cacheDurationMs: number | undefined;
  /** By pattern, in the order in which they are tried. */
  readonly auth: readonly (readonly [pattern: string, auth: PluginAuth])[];
}

const controlCharacter = /[\u0000-\u001f\u007f]/;
const authSchema = z.object({
  username: z
    .string()
    .max(1024)
    .refine((text) => !controlCharacter.test(text) && !text.includes(":"))
    .default(""),
  password: z
    .string()
    .max(16 * 1024)
    .refine((text) => !controlCharacter.test(text))
    .default(""),
});

const answerSchema = z.object({
  apiVersion: z.enum(pluginApiVersions),
  kind: z.literal("CredentialProviderResponse"),
  cacheKeyType: z.enum(["Image", "Registry", "Global"]),
  cacheDuration: z.string().max(64).nullish(),
  auth: z.record(z.string(), authSchema).nullish(),
});

/**
 * Reads a CredentialProviderResponse. What is wrong with it is not told but for the field's name: it may hold a secret
 * anywhere.
 *
 * @returns the answer, or the name of the field that is wrong
 */
export function parsePluginAnswer(text: string): PluginAnswer | string {
  const parsed = answerSchema.safeParse(parseJson(text));
  if (!parsed.success) return String(parsed.error.issues[0]?.path[0] ?? "the document");
  const { cacheKeyType, cacheDuration, auth } = parsed.data;
  const cacheDurationMs = typeof cacheDuration === "string" ? parseGoDuration(cacheDuration) : undefined;
  if (Number.isNaN(cacheDurationMs)) return "cacheDuration";
  const entries = Object.entries(auth ?? {}).map(
    ([pattern, { username, password }]) => [pattern, { username, password: new Redacted(password) }] as const,
  );
  return { cacheKeyType, cacheDurationMs, auth: inKubeletsOrder(entries) };
}

/** The credential for an image, as the kubelet chooses it: of several patterns the first in its order. */
export function authFor(answer: PluginAnswer, image: string): PluginAuth | undefined {
  const found = answer.auth.find(([text]) => {
    const pattern = parseImagePattern(text);
    return pattern !== undefined && matchesImage(pattern, image);
  });
  if (found !== undefined) return found[1];
  // Docker Hub's credentials stand under the name that its first version had.
  return image.startsWith("docker.io/")
    ? authFor(answer, image.replace("docker.io", "index.docker.io"))
    : undefined;
}

/** Reversed by name: longer ones come before shorter ones with the same beginning, and globs come last. */
function inKubeletsOrder<T>(entries: readonly (readonly [string, T])[]): readonly (readonly [string, T])[] {
  const key = (text: string): Buffer => Buffer.from(text.replace(/^https?:\/\//, ""), "utf8");
  return entries.toSorted(([a], [b]) => Buffer.compare(key(b), key(a)));
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const unitsMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  µs: 1e-3,
  μs: 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};

/** A duration as Go writes it (`time.ParseDuration`): `12h0m0s`, `1.5h`, `0`. NaN when it is none, or is negative. */
export function parseGoDuration(text: string): number {
  if (text === "0") return 0;
  if (!/^\+?((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+$/.test(text)) return Number.NaN;
  let total = 0;
  for (const [, value, unit = ""] of text.matchAll(/(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)/g)) {
    total += Number(value) * (unitsMs[unit] ?? Number.NaN);
  }
  return total;
}
