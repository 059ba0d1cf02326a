import { expect, test } from "bun:test";
import { generateKeyPairSync, type KeyObject, X509Certificate } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import "reflect-metadata";
import { Pkcs10CertificateRequestGenerator, SubjectAlternativeNameExtension } from "@peculiar/x509";
import { run } from "../std/spawn.ts";
import { readRequest, requestCertificate } from "./certificate.ts";
import { certificateOf, TestCluster } from "./cluster.test-kit.ts";
import type { ClusterError } from "./error.ts";
import { controlPlaneName, isControlPlane, workerIdOf, workerIdOfKey, workerName } from "./names.ts";

const pemOf = (pair: { readonly privateKey: KeyObject }) =>
  pair.privateKey.export({ type: "pkcs8", format: "pem" }) as string;
const p256 = () => generateKeyPairSync("ec", { namedCurve: "P-256" });
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "taken",
    (error: ClusterError) => error.code,
  );

test("OpenSSL takes a worker's certificate for both ends of TLS, under its own name, and not as an authority", async () => {
  const dir = await mkdtemp(join(tmpdir(), "oci-node-ca-"));
  try {
    const cluster = await TestCluster.make();
    const worker = await cluster.worker("w1");
    const [ca, leaf] = [join(dir, "ca.pem"), join(dir, "leaf.pem")];
    await writeFile(ca, cluster.signer.certificate);
    await writeFile(leaf, worker.certificate);
    const verify = (...more: string[]) => run(["openssl", "verify", "-x509_strict", "-CAfile", ca, ...more]);
    for (const purpose of ["sslclient", "sslserver"])
      await verify("-purpose", purpose, "-verify_hostname", workerName("w1"), leaf);
    await expect(verify("-verify_hostname", workerName("w2"), leaf)).rejects.toThrow();
    expect([certificateOf(worker).ca, new X509Certificate(cluster.signer.certificate).ca]).toEqual([
      false,
      true,
    ]);
  } finally {
    await rm(dir, { recursive: true });
  }
});

test("a worker's certificate is not the control plane's, nor the other way round", async () => {
  const cluster = await TestCluster.make();
  const [worker, plane] = [
    certificateOf(await cluster.worker("w1")),
    certificateOf(await cluster.controlPlane()),
  ];
  expect([workerIdOf(worker), isControlPlane(worker)]).toEqual(["w1", false]);
  expect([workerIdOf(plane), isControlPlane(plane)]).toEqual([undefined, true]);
});

test("a worker's id is its key's, and looks like a UUID", async () => {
  const [one, two] = [p256(), p256()].map((pair) => pair.publicKey.export({ type: "spki", format: "der" }));
  const id = workerIdOfKey(one as Buffer);
  expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(workerIdOfKey(one as Buffer)).toBe(id);
  expect(workerIdOfKey(two as Buffer)).not.toBe(id);
});

test("a request gives the key that it is signed with, whatever else it asks for", async () => {
  const pair = p256();
  const spki = pair.publicKey.export({ type: "spki", format: "der" });
  expect(Buffer.from(await readRequest(await requestCertificate(pemOf(pair)))).equals(spki)).toBe(true);

  const keys = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ]);
  const greedy = await Pkcs10CertificateRequestGenerator.create({
    name: `CN=${controlPlaneName}`,
    keys,
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
    extensions: [new SubjectAlternativeNameExtension([{ type: "dns", value: controlPlaneName }])],
  });
  const asked = await readRequest(greedy.toString("pem"));
  expect(workerIdOfKey(asked)).toBe(
    workerIdOfKey(new Uint8Array(await crypto.subtle.exportKey("spki", keys.publicKey))),
  );
});

test("a request that is not signed with its own P-256 key is refused", async () => {
  const good = await requestCertificate(pemOf(p256()));
  const der = Buffer.from(good.replace(/-----[^-]+-----/g, ""), "base64");
  der[der.length - 1] = (der.at(-1) ?? 0) ^ 1;
  const pem = (bytes: Uint8Array) =>
    `-----BEGIN CERTIFICATE REQUEST-----\n${Buffer.from(bytes).toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
  // A request for somebody else's key, signed with one's own.
  const [mine, theirs] = [
    await requestCertificate(pemOf(p256())),
    await requestCertificate(pemOf(p256())),
  ].map((text) => Buffer.from(text.replace(/-----[^-]+-----/g, ""), "base64")) as [Buffer, Buffer];
  const tail = mine.length - 75;
  const foreign = Buffer.concat([theirs.subarray(0, theirs.length - 75), mine.subarray(tail)]);
  const p384 = await Pkcs10CertificateRequestGenerator.create({
    name: "CN=worker",
    keys: await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-384" }, true, ["sign", "verify"]),
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
  });
  const rsaAlgorithm = { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" };
  const rsa = await Pkcs10CertificateRequestGenerator.create({
    name: "CN=worker",
    keys: await crypto.subtle.generateKey(
      { ...rsaAlgorithm, modulusLength: 2048, publicExponent: Uint8Array.of(1, 0, 1) },
      true,
      ["sign", "verify"],
    ),
    signingAlgorithm: rsaAlgorithm,
  });
  const bad = [
    pem(der),
    pem(foreign),
    p384.toString("pem"),
    rsa.toString("pem"),
    "",
    "hello",
    `${good}${"A".repeat(9000)}`,
  ];
  for (const request of bad) expect(await codeOf(readRequest(request))).toBe("bad_request");
  expect(await codeOf(readRequest(good))).toBe("taken");
});

test("however an identity is turned into text, its key is not in it", async () => {
  const identity = await (await TestCluster.make()).worker("w1");
  const key = identity.secureContext().key.split("\n")[1] as string;
  for (const text of [
    inspect(identity, { depth: 9, showHidden: true }),
    JSON.stringify(identity),
    `${identity}`,
  ])
    expect(text).not.toContain(key);
});
