import { expect, test } from "bun:test";
import type { ContainerSpec } from "./container.ts";
import { type ContainerOptions, defaultOptions } from "./options.ts";
import { requestVersionOf } from "./request-version.ts";

const plain: Pick<ContainerSpec, "network" | "options" | "handler" | "serving"> = {
  network: "none",
  options: defaultOptions,
};

test("what every version of a worker understands needs no later one, also as the database gives it back", () => {
  const stored = JSON.parse(JSON.stringify(defaultOptions)) as ContainerOptions;
  const turned = Object.fromEntries(Object.entries(stored).reverse()) as unknown as ContainerOptions;
  for (const options of [defaultOptions, stored, turned, { ...stored, entrypoint: undefined }])
    for (const network of ["none", "host"] as const)
      expect(requestVersionOf({ ...plain, network, options, handler: undefined })).toBe(0);
});

test("what an earlier version would leave out needs one that does not, whatever it is", () => {
  const handler = { codeSha256: "0", name: "app:handler", concurrency: 1 };
  const serving = { port: 8000, startupTimeoutMs: 1, concurrency: 1 };
  expect(requestVersionOf({ ...plain, network: "private" })).toBe(1);
  expect(requestVersionOf({ ...plain, handler })).toBe(1);
  expect(requestVersionOf({ ...plain, serving })).toBe(1);
  const changes: Required<{ [Name in keyof ContainerOptions]: ContainerOptions[Name] }> = {
    entrypoint: [],
    workingDirectory: "/w",
    user: "1",
    readOnly: true,
    tmpfs: [{ path: "/t", sizeBytes: 0, mode: 0 }],
    volumes: [{ source: "v", target: "/v", readOnly: false }],
    ports: [{ hostAddress: "", hostPort: 0, containerPort: 1, protocol: "tcp" }],
    secrets: [{ secretName: "s", variable: "S" }],
    pidsLimit: 1,
    storageBytes: 1,
    restart: { kind: "always", retriesMax: 0 },
    stopTimeoutMs: 1,
    terminal: true,
    stdin: true,
  };
  for (const [name, value] of Object.entries(changes))
    expect([name, requestVersionOf({ ...plain, options: { ...defaultOptions, [name]: value } })]).toEqual([
      name,
      1,
    ]);
});
