import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type ContainerOptions, defaultOptions } from "../container/options.ts";
import { containerMounts } from "./files/container-mounts.ts";
import { containerArgv } from "./process-section.ts";
import { type Ending, imageConfig, TestHost } from "./runtime.test-kit.ts";
import type { Runtime } from "./runtime.ts";
import type { ContainerSpec } from "./spec.ts";

let host: TestHost;
let runtime: Runtime;

beforeAll(async () => {
  host = await TestHost.open();
  runtime = await host.runtime();
});

afterAll(async () => {
  expect(await host.leftovers()).toEqual([]);
  await host.close();
});

const sh = (
  script: string,
  options: Partial<ContainerOptions>,
  more: Partial<ContainerSpec> = {},
): Promise<Ending> =>
  host.runToEnd(
    runtime,
    host.spec(["sh", "-c", script], { options: { ...defaultOptions, ...options }, ...more }),
  );

const failureOf = (spec: ContainerSpec): Promise<unknown> =>
  runtime.start(spec, new AbortController().signal).catch((error: unknown) => error);

test("an entrypoint takes the place of the image's, and its Cmd goes with it", () => {
  const image = imageConfig({ Entrypoint: ["/init", "--"], Cmd: ["serve"] });
  expect(containerArgv(image, undefined)).toEqual(["/init", "--", "serve"]);
  expect(containerArgv(image, ["sh"])).toEqual(["/init", "--", "sh"]);
  expect(containerArgv(image, undefined, ["/bin/other"])).toEqual(["/bin/other"]);
  expect(containerArgv(image, ["a"], ["/bin/other", "b"])).toEqual(["/bin/other", "b", "a"]);
  expect(containerArgv(image, ["sh"], [])).toEqual(["sh"]);
  expect(() => containerArgv(image, undefined, [])).toThrow("names no program to run");
});

test("runs elsewhere and as somebody else than the image says", async () => {
  const image = { imageConfig: imageConfig({ User: "root", WorkingDir: "/tmp" }) };
  const { output } = await sh(
    "pwd; id; stat -c %U .; touch here && echo made",
    { user: "ann:video", workingDirectory: "/made/for/it" },
    image,
  );
  expect(output).toBe("/made/for/it\nuid=1001(ann) gid=44(video) groups=44(video)\nann\nmade\n");
  expect(await failureOf(host.spec(["id"], { options: { ...defaultOptions, user: "eve" } }))).toMatchObject({
    code: "bad_user",
    message: 'the user "eve" is not in the image\'s /etc/passwd',
  });
});

test("a root that cannot be written, with memory where the container may write", async () => {
  const { output } = await sh(
    `touch /etc/x 2>/dev/null || echo closed
     echo a > /scratch/deep/file && cat /scratch/deep/file
     stat -c %a /scratch/deep /shared
     head -c 2000000 /dev/zero > /scratch/deep/big 2>/dev/null || echo full
     grep -c '/scratch/deep tmpfs rw,nosuid,nodev' /proc/mounts
     touch /dev/shm/x && grep -o '/dev/shm .*' /proc/mounts | grep -o 'size=[0-9]*k'`,
    {
      readOnly: true,
      tmpfs: [
        { path: "/scratch/deep/", sizeBytes: 1024 ** 2, mode: 0o700 },
        { path: "/shared", sizeBytes: 1024 ** 2, mode: 0o1777 },
        { path: "/dev/shm", sizeBytes: 3 * 1024 ** 2, mode: 0o1777 },
      ],
    },
  );
  expect(output).toBe("closed\na\n700\n1777\nfull\n1\nsize=3072k\n");
});

test("shows the worker's own files, to be read alone and never to gain by, wherever the image's links lead", async () => {
  const code = join(host.directory, "code");
  await mkdir(code);
  await writeFile(join(code, "su"), "#!/bin/sh\necho ran\n");
  await chmod(join(code, "su"), 0o4755);
  await writeFile(join(host.directory, "runner.py"), "print()\n");
  await symlink("/../../../../srv", join(host.imageRoot, "opt"));
  const binds = [
    { source: code, target: "/opt/code" },
    { source: join(host.directory, "runner.py"), target: "/run/own/runner.py" },
  ];
  const { output } = await sh(
    `ls /srv/code; cat /run/own/runner.py; /opt/code/su
     touch /opt/code/x 2>/dev/null || echo closed
     grep ' /srv/code ' /proc/mounts | grep -o 'ro,nosuid,nodev'`,
    {},
    { binds },
  );
  expect(output).toBe("su\nprint()\nran\nclosed\nro,nosuid,nodev\n");
});

test("hands secrets over as files in memory, for the container's user alone", async () => {
  const secretFiles = new Map([["db", Buffer.from("hunter2\n")]]);
  const secrets = [
    { secretName: "db", path: "/run/secrets/db" },
    { secretName: "db", path: "/home/ann/.pass" },
    { secretName: "other", variable: "OTHER" },
  ];
  const { output } = await sh(
    `cat /run/secrets/db /home/ann/.pass; stat -c '%a %U' /run/secrets/db
     echo x > /run/secrets/db 2>/dev/null || echo closed
     grep ' /run/secrets/db ' /proc/mounts | cut -d ' ' -f 3`,
    { secrets, user: "ann" },
    { secretFiles },
  );
  expect(output).toBe("hunter2\nhunter2\n400 ann\nclosed\ntmpfs\n");
  expect(await failureOf(host.spec(["true"], { options: { ...defaultOptions, secrets } }))).toMatchObject({
    code: "bad_config",
    message: 'the value of secret "db" is not here',
  });
});

describe("a mount", () => {
  const at = (...paths: string[]): (() => unknown) => {
    const tmpfs = paths.map((path) => ({ path, sizeBytes: 1, mode: 0o700 }));
    const spec = host.spec([], { options: { ...defaultOptions, tmpfs } });
    return () => containerMounts(spec, [], []);
  };

  test.each([
    "",
    "x",
    "/",
    "//",
    "/a/../b",
    "/./a",
    "/proc",
    "/proc/self",
    "/sys/x",
    "/dev",
    "/dev/pts",
    "/a\0b",
  ])("at %p is refused", (path) => {
    expect(at(path)).toThrow(/cannot be mounted at/);
  });

  test("is the only one at its place, and comes after what is above it", () => {
    expect(at("/a", "/a/")).toThrow("two things are to be mounted at /a");
    expect(at("/a/b/c", "/a", "/a/b")() as object).toMatchObject([
      { destination: "/a" },
      { destination: "/a/b" },
      { destination: "/a/b/c" },
    ]);
  });
});
