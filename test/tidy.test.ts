import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

const root = join(import.meta.dir, "..");

/** The rooms as they stand on their line: each may import those before it and the floor. */
const line = [
  "reference",
  "credential",
  "audit",
  "secret",
  "cluster",
  "registry",
  "index",
  "image",
  "container",
  "health",
  "scheduler",
  "mount",
  "runtime",
  "endpoint",
];
const floor = ["std", "native", "gen", "rpc", "db"];
/** What each part of the floor may import of the floor, beside itself. */
const floorImports: Readonly<Record<string, readonly string[]>> = {
  std: [],
  gen: [],
  native: ["std"],
  rpc: ["std", "gen"],
  db: ["std"],
};

interface Source {
  /** `src/registry/client.ts` */
  readonly path: string;
  readonly text: string;
  /** Folder below src, or the file's own name at the top (`main.ts`, `config.ts`). */
  readonly room: string;
  readonly name: string;
  /** Paths of the files that it imports, types included, and names of packages. */
  readonly imports: readonly string[];
}

function load(pattern: string): Source[] {
  return [...new Bun.Glob(pattern).scanSync({ cwd: root })].sort().map((path) => {
    const text = readFileSync(join(root, path), "utf8");
    const targets = [...text.matchAll(/(?:\bfrom\s*|\bimport\s*\(?\s*)"([^"]+)"/g)].map(
      (match) => match[1] ?? "",
    );
    const imports = targets.map((target) =>
      target.startsWith(".") ? normalize(join(dirname(path), target)) : target,
    );
    const [, room = ""] = path.split("/");
    return { path, text, room, name: path.split("/").at(-1) ?? "", imports };
  });
}

const all = load("src/**/*.ts").filter((source) => source.room !== "gen");
const isTest = (source: Source): boolean => /\.(test|test-kit)\.ts$/.test(source.name);
const sources = all.filter((source) => !isTest(source));
const roomOf = (path: string): string => path.split("/")[1] ?? "";

/** One line per import of a source that `wrong` objects to. */
function wrongImports(
  among: readonly Source[],
  wrong: (source: Source, target: string) => boolean,
): string[] {
  return among.flatMap((source) =>
    source.imports
      .filter((target) => wrong(source, target))
      .map((target) => `${source.path} imports ${target}`),
  );
}

/** `path:line` of each place where the pattern is. */
function places(among: readonly Source[], pattern: RegExp): string[] {
  return among.flatMap((source) =>
    source.text
      .split("\n")
      .flatMap((text, index) => (pattern.test(text) ? [`${source.path}:${index + 1} ${text.trim()}`] : [])),
  );
}

const inSource = (target: string): boolean => target.startsWith("src/");

describe("imports", () => {
  test("a room imports only rooms to its left and the floor", () => {
    const wrong = wrongImports(sources, (source, target) => {
      const own = line.indexOf(source.room);
      if (own < 0 || !inSource(target) || floor.includes(roomOf(target))) return false;
      const other = line.indexOf(roomOf(target));
      return other < 0 || other > own;
    });
    expect(wrong).toEqual([]);
  });

  test("the floor does not stand on the rooms", () => {
    const wrong = wrongImports(sources, (source, target) => {
      const allowed = floorImports[source.room];
      if (allowed === undefined || !inSource(target) || roomOf(target) === source.room) return false;
      // The one translator of errors to the wire knows every room's error, and nothing else of it.
      if (source.path === "src/rpc/error.ts" && /\/error\.ts$/.test(target)) return false;
      return !allowed.includes(roomOf(target));
    });
    expect(wrong).toEqual([]);
  });

  test("only stores touch the database", () => {
    const wrong = wrongImports(
      sources.filter((source) => line.includes(source.room) && !/(^|-)store\.ts$/.test(source.name)),
      (_, target) => inSource(target) && roomOf(target) === "db",
    );
    expect(wrong).toEqual([]);
  });

  test("only services and clients know the wire", () => {
    const wrong = wrongImports(
      sources.filter(
        (source) => line.includes(source.room) && !/(^|-)(service|client)\.ts$/.test(source.name),
      ),
      (_, target) => inSource(target) && ["gen", "rpc"].includes(roomOf(target)),
    );
    expect(wrong).toEqual([]);
  });

  test("the clients of AWS are loaded when they are needed, and by no start", () => {
    const atStart = /^import (?!type ).*from "@aws-sdk\//;
    expect(places(sources, atStart)).toEqual([]);
    expect(places(sources, /await import\("@aws-sdk\//).length).toBeGreaterThan(0);
  });

  test("only src/native binds native code", () => {
    expect(
      wrongImports(
        all.filter((source) => source.room !== "native"),
        (_, target) => target === "bun:ffi",
      ),
    ).toEqual([]);
  });

  test("only the registry room's egress goes out to the network", () => {
    const others = sources.filter(
      (source) => source.path !== "src/registry/pinned-fetch.ts" && source.room !== "rpc",
    );
    expect(places(others, /(?<![#.\w])fetch\(|\bBun\.(connect|udpSocket)\b|new WebSocket\(/)).toEqual([]);
    const clients = ["node:http", "node:https", "node:http2", "undici", "axios", "got", "node-fetch"];
    // What carries requests to containers, of this host or through its worker: addresses that we gave ourselves.
    const toContainers = [
      "src/runtime/requests/http-exchange.ts",
      "src/runtime/requests/forwarder.ts",
      "src/endpoint/forward-client.ts",
    ];
    const untyped = others.map((source) => ({
      ...source,
      imports: [...source.text.matchAll(/^(?:import (?!type )|\} )[^;]*?from "([^"]+)"/gm)].map(
        (match) => match[1] ?? "",
      ),
    }));
    expect(
      wrongImports(
        untyped,
        (source, target) =>
          clients.includes(target) && source.room !== "role" && !toContainers.includes(source.path),
      ),
    ).toEqual([]);
  });

  test("nobody but main and the command line imports a role", () => {
    const outside = sources.filter((source) => !["role", "cli", "main.ts"].includes(source.room));
    expect(wrongImports(outside, (_, target) => inSource(target) && roomOf(target) === "role")).toEqual([]);
  });

  test("there are no barrels", () => {
    expect(all.map((source) => source.path).filter((path) => path.endsWith("/index.ts"))).toEqual([]);
    expect(places(all, /^export \* from/)).toEqual([]);
  });
});

describe("secrets", () => {
  test("plain values are taken out only in the rooms that use them", () => {
    const outside = sources.filter((source) => !["credential", "secret", "registry"].includes(source.room));
    expect(
      places(
        outside.filter((source) => source.path !== "src/std/redacted.ts"),
        /\.expose\(/,
      ),
    ).toEqual([]);
  });

  test("nothing writes the environment of the process", () => {
    const write =
      /(process|Bun)\.env(\.\w+|\[[^\]]+\])\s*(\?\?|\|\|)?=[^=]|delete (process|Bun)\.env|assign\((process|Bun)\.env/;
    expect(places(all, write)).toEqual([]);
  });
});

describe("children", () => {
  const spawning = /(?:\bBun\.|(?<![.\w]))(?:spawn|spawnSync|execFile|execFileSync|execSync|fork)\(/g;

  test("begin with a clean environment, each one", () => {
    const calls = sources.flatMap(({ path, text }) =>
      [...text.matchAll(spawning)].map(({ index }) => ({ path, call: text.slice(index, index + 700) })),
    );
    // `serverEnvironment` is PostgreSQL's, made of the clean one.
    const clean = /^[^;]*?\benv: (\{ \.\.\.cleanEnvironment|cleanEnvironment\b|serverEnvironment\()/;
    expect(calls.filter(({ call }) => !clean.test(call))).toEqual([]);
    expect(calls.length).toBeGreaterThan(6);
  });

  test("are given no variables of ours by name of them all, and run in no shell", () => {
    expect(places(sources, /\.\.\.(process|Bun)\.env|\bBun\.\$|shell: true/)).toEqual([]);
  });
});

describe("habits", () => {
  const tests = [...load("test/**/*.ts"), ...all];

  test("no file is longer than 400 lines", () => {
    const long = tests.filter((source) => source.text.split("\n").length > 401);
    expect(long.map((source) => source.path)).toEqual([]);
  });

  test("no test is skipped, singled out or left for later", () => {
    const pattern = /\b(test|it|describe)\.(only|skip|todo|if|skipIf|todoIf|failing)\b/;
    expect(
      places(
        tests.filter((source) => source.path !== "test/tidy.test.ts"),
        pattern,
      ),
    ).toEqual([]);
  });

  test("versions are pinned exactly and the lock file names no host", () => {
    const { dependencies, devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    const loose = Object.entries({ ...dependencies, ...devDependencies }).filter(
      ([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(String(version)),
    );
    expect(loose).toEqual([]);
    expect(readFileSync(join(root, "package-lock.json"), "utf8")).not.toContain('"resolved"');
  });

  test("rooms that need a door have a README of at most 60 lines", () => {
    for (const room of [
      "index",
      "mount",
      "credential",
      "audit",
      "secret",
      "cluster",
      "registry",
      "native",
      "runtime",
      "endpoint",
    ]) {
      const text = readFileSync(join(root, "src", room, "README.md"), "utf8");
      expect(text.split("\n").length).toBeLessThanOrEqual(61);
    }
  });
});
