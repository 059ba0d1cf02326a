import { expect, test } from "bun:test";
import { release, tmpdir } from "node:os";
import { mountsBelow } from "./mount.test-kit.ts";
import { probeTransport } from "./probe.ts";

test("a host's ways of mounting are found by mounting, and nothing is left", async () => {
  const found = await probeTransport();
  expect(found).toEqual({ file: true, loop: true, fuse: true, resend: true, kernel: release(), detail: [] });
  expect(await mountsBelow(`${tmpdir()}/oci-node-probe-`)).toEqual([]);
});
