import { askProgram } from "../std/ask-program.ts";
import { FewAtOnce } from "../std/few-at-once.ts";
import { SingleFlight } from "../std/single-flight.ts";
import { SpawnError } from "../std/spawn.ts";
import { waitFor } from "../std/wait.ts";
import { CredentialError } from "./error.ts";
import { fingerprintOf } from "./fingerprint.ts";
import { identityCredential } from "./identity.ts";
import type { Identity } from "./issuer.ts";
import { authFor, type PluginAnswer, type PluginApiVersion, parsePluginAnswer } from "./plugin-answer.ts";
import { matchesImage, matchesRegistry, parseImagePattern } from "./plugin-match.ts";
import type { RegistryAuthorization } from "./provider.ts";

export interface PluginIdentitySettings {
  /** The program, by its absolute path, and its arguments. */
  readonly command: readonly string[];
  /** All that it gets beside PATH and the locale. */
  readonly env: Readonly<Record<string, string>>;
  /** As in the kubelet's CredentialProviderConfig. */
  readonly matchImages: readonly string[];
  readonly timeoutMs: number;
  readonly apiVersion: PluginApiVersion;
}

interface Kept {
  readonly answer: PluginAnswer;
  readonly renewAtMs: number;
  readonly endsAtMs: number;
}

const answerBytesMax = 64 * 1024;
const keptMax = 1000;
/** What a credential counts as good for when the plugin does not say. */
const unsaidLifeMs = 10 * 60_000;
/** Each request of a pull asks for it: a program a second is enough. */
const shortestLifeMs = 2_000;
const longestLifeMs = 30 * 24 * 3_600_000;
/** What is not to be kept is kept for so long: one pull of the kubelet's is many requests here. */
const onePullMs = 60_000;
/** Workspaces choose the images: how many programs run because of that is not theirs to say. */
const programsMax = 8;
const waitingMax = 256;

/**
 * An identity that a program gives: a credential provider plugin of the kubelet's. Its answers are kept for as long as it
 * says and for what it says (image, registry, all), and asked for anew at half of that time.
 */
export function pluginIdentity(
  name: string,
  settings: PluginIdentitySettings,
  dependencies: { readonly now?: () => number } = {},
): Identity {
  const plugin = new Plugin(name, settings, dependencies.now ?? Date.now);
  return {
    name,
    provider(registry, repository) {
      const image = repository === undefined ? registry : `${registry}/${repository}`;
      if (!plugin.isFor(registry, repository)) {
        throw new CredentialError("registry_mismatch", `the identity ${name} is not for ${image}`, {
          next: `Give a credential for ${registry}, or have match_images of the identity name it.`,
        });
      }
      return {
        registry,
        type: "identity",
        fingerprint: fingerprintOf(identityCredential(registry, name), `plugin ${repository ?? ""}`),
        renewable: true,
        authorization: (signal, options) =>
          waitFor(plugin.authorization(registry, image, options?.refresh === true), signal),
      };
    },
  };
}

class Plugin {
  readonly #name: string;
  readonly #settings: PluginIdentitySettings;
  readonly #now: () => number;
  readonly #kept = new Map<string, Kept>();
  readonly #flights = new SingleFlight<Kept>();
  readonly #programs = new FewAtOnce(programsMax, waitingMax);

  constructor(name: string, settings: PluginIdentitySettings, now: () => number) {
    this.#name = name;
    this.#settings = settings;
    this.#now = now;
  }

  isFor(registry: string, repository: string | undefined): boolean {
    return this.#settings.matchImages.some((text) => {
      const pattern = parseImagePattern(text);
      if (pattern === undefined) return false;
      return repository === undefined
        ? matchesRegistry(pattern, registry)
        : matchesImage(pattern, `${registry}/${repository}`);
    });
  }

  async authorization(registry: string, image: string, refresh: boolean): Promise<RegistryAuthorization> {
    const { answer, endsAtMs } = await this.#answer(registry, image, refresh);
    const auth = authFor(answer, image);
    if (auth === undefined) {
      throw this.#failed(
        `has no credential for ${image}`,
        "Ask the node's operator to check what it may pull.",
      );
    }
    return { kind: "basic", ...auth, expiresAt: new Date(endsAtMs) };
  }

  async #answer(registry: string, image: string, refresh: boolean): Promise<Kept> {
    const kept = this.#find(registry, image);
    if (kept !== undefined && !refresh && this.#now() < kept.renewAtMs) return kept;
    try {
      const flight = `${refresh ? "again" : "first"} ${image}`;
      return await this.#flights.run(flight, () => this.#ask(registry, image, refresh));
    } catch (error) {
      if (kept !== undefined && !refresh && this.#now() < kept.endsAtMs) return kept;
      throw error;
    }
  }

  #find(registry: string, image: string): Kept | undefined {
    for (const key of [keyOf("Image", registry, image), keyOf("Registry", registry, image), "Global"]) {
      const kept = this.#kept.get(key);
      if (kept !== undefined && this.#now() < kept.endsAtMs) return kept;
    }
    return undefined;
  }

  async #ask(registry: string, image: string, refresh: boolean): Promise<Kept> {
    if (this.#programs.isFull) {
      const next = "Try again in a minute.";
      throw this.#failed("is asked for too many images at once", next, "provider_unreachable");
    }
    return await this.#programs.run(async () => {
      // Meanwhile another image of the registry may have brought an answer for all of it.
      const kept = refresh ? undefined : this.#find(registry, image);
      if (kept !== undefined && this.#now() < kept.renewAtMs) return kept;
      return this.#keep(registry, image, await this.#run(image));
    });
  }

  #keep(registry: string, image: string, answer: PluginAnswer): Kept {
    const now = this.#now();
    const { cacheKeyType } = answer;
    const saidMs = Math.min(answer.cacheDurationMs ?? 0, longestLifeMs);
    const cacheDurationMs = saidMs === 0 ? 0 : Math.max(saidMs, shortestLifeMs);
    const kept =
      cacheDurationMs === 0
        ? { answer, renewAtMs: now + onePullMs, endsAtMs: now + unsaidLifeMs }
        : { answer, renewAtMs: now + cacheDurationMs / 2, endsAtMs: now + cacheDurationMs };
    const key = keyOf(cacheDurationMs === 0 ? "Image" : cacheKeyType, registry, image);
    this.#kept.delete(key);
    this.#kept.set(key, kept);
    const oldest = this.#kept.keys().next();
    if (this.#kept.size > keptMax && !oldest.done) this.#kept.delete(oldest.value);
    return kept;
  }

  async #run(image: string): Promise<PluginAnswer> {
    const { command, env, timeoutMs, apiVersion } = this.#settings;
    const request = { apiVersion, kind: "CredentialProviderRequest", image };
    try {
      const { exitCode, stdout } = await askProgram(command, {
        env,
        stdin: JSON.stringify(request),
        timeoutMs,
        stdoutBytesMax: answerBytesMax,
      });
      if (exitCode !== 0) throw this.#failed(`ended with exit code ${exitCode}`, runItYourself(command));
      const answer = parsePluginAnswer(stdout);
      if (typeof answer !== "string") return answer;
      throw this.#failed(
        `answers with what is no CredentialProviderResponse (${answer})`,
        runItYourself(command),
      );
    } catch (error) {
      throw error instanceof SpawnError ? this.#notAnswered(error) : error;
    }
  }

  #notAnswered(error: SpawnError): CredentialError {
    const { command } = this.#settings;
    if (error.code === "not_found") {
      return this.#failed("could not be started", `Check that ${command[0]} is there and may be executed.`);
    }
    if (error.code === "timeout") {
      const what = `did not answer within ${this.#settings.timeoutMs / 1000} s`;
      return this.#failed(what, runItYourself(command), "provider_unreachable");
    }
    return this.#failed(`answers with more than ${answerBytesMax / 1024} KiB`, runItYourself(command));
  }

  #failed(
    what: string,
    next: string,
    code: "provider_failed" | "provider_unreachable" = "provider_failed",
  ): CredentialError {
    return new CredentialError(code, `the plugin of the identity ${this.#name} ${what}`, { next });
  }
}

/** The program's own words are on its standard error, which is not repeated: it may hold secrets. */
function runItYourself(command: readonly string[]): string {
  return `Run ${command[0]} on the node with a CredentialProviderRequest on its standard input to see why.`;
}

function keyOf(type: PluginAnswer["cacheKeyType"], registry: string, image: string): string {
  if (type === "Global") return "Global";
  return type === "Registry" ? `Registry ${registry}` : `Image ${image}`;
}
