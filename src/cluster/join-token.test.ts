import { expect, test } from "bun:test";
import { X509Certificate } from "node:crypto";
import { TestCluster } from "./cluster.test-kit.ts";
import type { ClusterError } from "./error.ts";
import { authorityId, formatJoinToken, parseJoinToken, pinnedAuthority } from "./join-token.ts";

const token = `ocn_${"a".repeat(43)}`;
const idOf = (pem: string) => authorityId(new X509Certificate(pem).raw);
const errorOf = (work: () => unknown): ClusterError => {
  try {
    work();
  } catch (error) {
    return error as ClusterError;
  }
  throw new Error("nothing was refused");
};

test("a join token is read as it was written, with the authority that signs", async () => {
  const [newest, older] = [await TestCluster.make(), await TestCluster.make()].map(({ signer }) =>
    idOf(signer.certificate),
  );
  const text = formatJoinToken(token, [{ id: newest as string }, { id: older as string }]);
  expect(text).toMatch(/^ocn_[A-Za-z0-9_-]{43}\.[A-Za-z0-9_-]{43}$/);
  expect(parseJoinToken(`${text}\n`, "file")).toEqual({ token, authority: newest as string });
});

test("what is no join token, or names no authority, is refused by the file's name without what it holds", () => {
  for (const text of [
    "",
    "x",
    token,
    `${token}.`,
    `${token}.short`,
    `${token}.${"A".repeat(43)}.x`,
    `ocn_.${"A".repeat(43)}`,
  ]) {
    const error = errorOf(() => parseJoinToken(text, "/etc/token"));
    expect(error.code).toBe("bad_token");
    expect(error.message).toStartWith("/etc/token holds");
    expect(`${error.message}${error.next}`).not.toContain("aaaa");
  }
});

test("of the authorities that a scheduler gives only the one that the token names is believed", async () => {
  const [own, evil] = [await TestCluster.make(), await TestCluster.make()].map(
    ({ signer }) => signer.certificate,
  ) as [string, string];
  const pin = idOf(own);
  const believed = pinnedAuthority(`${evil}${own}`, pin, "https://s");
  expect([believed.id, idOf(believed.certificate)]).toEqual([pin, pin]);
  for (const given of [evil, "", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
    expect(errorOf(() => pinnedAuthority(given, pin, "https://s")).code).toBe("wrong_authority");
});
