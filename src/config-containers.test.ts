import { expect, test } from "bun:test";
import { containerNetwork } from "./config-containers.ts";

test("takes a subnet that addresses can be given from, and no other", () => {
  for (const subnet of ["10.0.0.0/8", "192.168.7.0/24", "172.20.1.16/28"])
    expect(containerNetwork.parse({ subnet }).subnet).toBe(subnet);
  for (const subnet of ["10.0.0.0", "0.0.0.0/0", "10.0.0.0/30", "10.0.0.0/33", "10.0.0/16", "fd00::/64"])
    expect(containerNetwork.safeParse({ subnet }).success).toBe(false);
});
