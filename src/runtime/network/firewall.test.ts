import { beforeAll, expect, test } from "bun:test";
import { join } from "node:path";
import { run } from "../../std/spawn.ts";

interface Said {
  readonly forwarded: string;
  readonly made: string[];
  readonly again: string[];
  readonly restored: string[];
  readonly changed: string[];
  readonly removed: string[];
}

let said: Said;

beforeAll(async () => {
  const script = join(import.meta.dir, "firewall.test-kit.ts");
  said = JSON.parse((await run(["unshare", "--net", process.execPath, script])).stdout) as Said;
});

test("makes its rules whole, once, again when they were lost, and takes away no others", () => {
  const others = "-A FORWARD -d 192.0.2.1/32 -j DROP";
  const forward = said.made.filter((line) => line.startsWith("-A FORWARD"));
  expect(forward).toEqual([
    expect.stringMatching(/^-A FORWARD -i on[0-9a-f]{5}-\+ -j OCI-NODE-[0-9a-f]{5}-FROM$/),
    expect.stringMatching(/^-A FORWARD -o on[0-9a-f]{5}-\+ -j OCI-NODE-[0-9a-f]{5}-TO$/),
    others,
  ]);
  expect(said.again).toEqual(said.made);
  // The flush took the others too.
  expect(said.restored).toEqual(said.made.filter((line) => line !== others));
  expect(said.removed).toEqual([":FORWARD DROP [0:0]"]);
});

test("lets a host that forwarded nothing forward for its containers alone", () => {
  const { forwarded, made } = said;
  expect(forwarded).toBe("1");
  expect(made).toContain(":FORWARD DROP [0:0]");
});

test("refuses what is denied, but for names that are resolved there; lets to the host where the operator allows", () => {
  const { made, changed } = said;
  const chain = (lines: string[], name: string): string[] =>
    lines.filter((line) => line.includes(`-${name} `)).map((line) => line.replace(/^-A \S+ /, ""));
  const from = chain(made, "FROM");
  const named = from.indexOf("-d 169.254.169.254/32 -p udp -m udp --dport 53 -j ACCEPT");
  const denied = from.findIndex((rule) => rule.startsWith("-d 169.254.0.0/16 "));
  expect(named).toBeGreaterThan(0);
  expect(denied).toBeGreaterThan(named);
  // Alibaba's, Azure's and Oracle's services for hosts, which are no link-local addresses.
  for (const range of ["100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32"])
    expect(from.filter((rule) => rule.startsWith(`-d ${range} `) && rule.includes("REJECT"))).toHaveLength(2);
  expect(from.at(-1)).toBe("-j ACCEPT");
  expect(chain(made, "HOST").at(-1)).toStartWith("-j REJECT");
  expect(chain(changed, "HOST").at(-1)).toStartWith("-d 10.0.0.0/8 -j REJECT");
  expect(chain(changed, "HOST")).toContain("-d 127.0.0.0/8 -j DROP");
  expect(changed.join("\n")).not.toContain("169.254");
});
