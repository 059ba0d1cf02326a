import { describe, expect, test } from "bun:test";
import { assertDigest, digestOf, isDigest } from "./digest.ts";
import { ImageReferenceError } from "./error.ts";
import { formatPlatform, hostPlatform, parsePlatform } from "./platform.ts";
import {
  formatReference,
  normalizeRegistry,
  parseReference,
  parseRegistry,
  registryApiHost,
} from "./reference.ts";

const digest = `sha256:${"0a".repeat(32)}`;

describe("registries of references", () => {
  test.each([
    ["debian", "docker.io"],
    ["debian:12", "docker.io"],
    ["user/app", "docker.io"],
    ["docker.io/user/app", "docker.io"],
    ["index.docker.io/library/debian", "docker.io"],
    ["registry-1.docker.io/library/debian", "docker.io"],
    ["docker://ghcr.io/acme/app:1", "ghcr.io"],
    ["oci://ghcr.io/acme/app:1", "ghcr.io"],
    ["GHCR.io/acme/app", "ghcr.io"],
    ["localhost/app", "localhost"],
    ["localhost:5000/app", "localhost:5000"],
    ["host:5000/team/app:1", "host:5000"],
    ["[::1]:5000/app", "[::1]:5000"],
    ["[0:0::1]:5000/app", "[::1]:5000"],
    ["10.0.0.1:5000/app", "10.0.0.1:5000"],
    ["123456789012.dkr.ecr.us-east-1.amazonaws.com/app:1", "123456789012.dkr.ecr.us-east-1.amazonaws.com"],
    ["us-docker.pkg.dev/project/repo/app", "us-docker.pkg.dev"],
    ["nvcr.io/nvidia/cuda:12", "nvcr.io"],
  ])("%s is in %s", (text, registry) => {
    expect(parseRegistry(text)).toBe(registry);
  });

  test("a registry by itself has one canonical form", () => {
    expect(normalizeRegistry("index.docker.io")).toBe("docker.io");
    expect(normalizeRegistry("GHCR.IO/")).toBe("ghcr.io");
    expect(normalizeRegistry("localhost:5000")).toBe("localhost:5000");
  });

  test("Docker Hub's API is on another host than its name", () => {
    expect(registryApiHost("docker.io")).toBe("registry-1.docker.io");
    expect(registryApiHost("ghcr.io")).toBe("ghcr.io");
  });
});

describe("references", () => {
  test.each([
    ["debian", "docker.io/library/debian:latest"],
    ["debian:12", "docker.io/library/debian:12"],
    [`debian@${digest}`, `docker.io/library/debian@${digest}`],
    [`debian:12@${digest}`, `docker.io/library/debian:12@${digest}`],
    ["localhost:5000/a/b__c/d-e.f:V1_2.3", "localhost:5000/a/b__c/d-e.f:V1_2.3"],
    ["quay.io/org/app", "quay.io/org/app:latest"],
  ])("%s is %s in full", (text, full) => {
    expect(formatReference(parseReference(text))).toBe(full);
    expect(parseReference(full)).toEqual(parseReference(text));
  });

  test.each([
    "",
    " ",
    "docker.io/",
    "ghcr.io/Acme/app",
    "Acme/app",
    "app:",
    "app:-x",
    `app:${"x".repeat(129)}`,
    "app@sha256:12",
    "app@sha512:12",
    `app@${digest}@${digest}`,
    "https://ghcr.io/acme/app",
    "user:pw@ghcr.io/acme/app",
    "ghcr.io:0/app",
    "ghcr.io:65536/app",
    "ghcr.io:x/app",
    "-bad.io/app",
    "127.1:5000/app",
    "0x7f.0.0.1/app",
    "evil.com%2f.amazonaws.com/app",
    "evil.com\\.amazonaws.com/app",
    "[fe80::1%25eth0]/app",
    "ghcr.io/../etc",
    "ghcr.io/a//b",
    "ghcr.io/a/b/",
    "ghcr.io/a?x=1",
    "ghcr.io/a b",
    "ghcr.io/ä",
    `ghcr.io/${"a/".repeat(200)}a`,
    "x".repeat(2000),
  ])("refuses %p", (text) => {
    expect(() => parseReference(text)).toThrow(ImageReferenceError);
  });

  test("does not show a password that somebody put into a URL", () => {
    try {
      parseReference("https://alice:hunter2@ghcr.io/acme/app");
    } catch (error) {
      expect(String(error)).not.toContain("hunter2");
      return;
    }
    throw new Error("not refused");
  });
});

describe("digests", () => {
  test("knows a digest", () => {
    expect(isDigest(digest)).toBe(true);
    expect(isDigest(digest.toUpperCase())).toBe(false);
    expect(isDigest(`${digest}\n`)).toBe(false);
    expect(() => assertDigest("sha256:..")).toThrow(ImageReferenceError);
  });

  test("digests bytes", () => {
    expect(digestOf(new Uint8Array())).toBe(
      "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    );
  });
});

describe("platforms", () => {
  test.each([
    ["linux/amd64", "linux/amd64"],
    ["linux/x86_64", "linux/amd64"],
    ["linux/arm64/v8", "linux/arm64"],
    ["linux/aarch64", "linux/arm64"],
    ["linux/arm/7", "linux/arm/v7"],
    ["Linux/ARM/v6", "linux/arm/v6"],
  ])("%s is %s", (text, canonical) => {
    expect(formatPlatform(parsePlatform(text))).toBe(canonical);
  });

  test.each(["", "linux", "linux/", "/amd64", "linux/arm/v7/x", "linux/a b"])("refuses %p", (text) => {
    expect(() => parsePlatform(text)).toThrow(ImageReferenceError);
  });

  test("the host has one", () => {
    expect(hostPlatform().os).toBe("linux");
  });
});
