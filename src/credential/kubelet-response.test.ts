import { describe, expect, test } from "bun:test";
import { CredentialError } from "./error.ts";
import { type KubeletCredential, kubeletResponse, parseKubeletRequest } from "./kubelet-response.ts";
import { authFor, parseGoDuration, parsePluginAnswer, pluginApiVersions } from "./plugin-answer.ts";

const nowMs = Date.parse("2026-01-01T00:00:00Z");
const v1 = "credentialprovider.kubelet.k8s.io/v1";
const image = "r.test:5000/team/app";

/** As the kubelet writes it (k8s.io/kubelet, pkg/apis/credentialprovider/v1). */
const request = (more: object = {}) =>
  JSON.stringify({ kind: "CredentialProviderRequest", apiVersion: v1, image, ...more });

const credential = (more: Partial<KubeletCredential> = {}): KubeletCredential => ({
  registry: "r.test:5000",
  repository: "",
  username: "robot",
  secret: "hunter2",
  validUntil: undefined,
  ...more,
});

function answer(given: KubeletCredential | undefined, more: object = {}): Record<string, unknown> {
  return kubeletResponse(parseKubeletRequest(request(more)), given, nowMs) as Record<string, unknown>;
}

describe("a response to the kubelet", () => {
  test("has the fields of the API and no others", () => {
    expect(answer(credential())).toEqual({
      apiVersion: v1,
      kind: "CredentialProviderResponse",
      cacheKeyType: "Registry",
      cacheDuration: "1m0s",
      auth: { "r.test:5000": { username: "robot", password: "hunter2" } },
    });
  });

  test("speaks the version that it was asked in", () => {
    for (const apiVersion of pluginApiVersions) {
      expect(answer(credential(), { apiVersion })["apiVersion"]).toBe(apiVersion);
    }
  });

  test("is chosen by the kubelet's own rule for the image that was asked for", () => {
    for (const [registry, repository, asked] of [
      ["r.test:5000", "", image],
      ["r.test:5000", "team/app", image],
      ["docker.io", "", "docker.io/library/debian"],
      ["[::1]:5000", "", "[::1]:5000/team/app"],
    ] as const) {
      const parsed = parsePluginAnswer(JSON.stringify(answer(credential({ registry, repository }))));
      if (typeof parsed === "string") throw new Error(parsed);
      expect(authFor(parsed, asked)?.password.expose()).toBe("hunter2");
      expect(authFor(parsed, "r.test/team/app")).toBeUndefined();
    }
  });

  test("is kept by image where the credential was got for one repository", () => {
    const given = answer(credential({ repository: "team/app" }));
    expect(given["cacheKeyType"]).toBe("Image");
    expect(Object.keys(given["auth"] as object)).toEqual([image]);
  });

  test.each([
    [12 * 3600, "1h0m0s"],
    [70 * 60, "55m0s"],
    [20 * 60, "10m0s"],
    [301, "2m30s"],
    [0, "0s"],
    [-60, "0s"],
  ])("of a credential with %d s left is kept for %s", (leftSeconds, kept) => {
    const given = answer(credential({ validUntil: new Date(nowMs + leftSeconds * 1000) }));
    expect(given["cacheDuration"]).toBe(kept);
    expect(parseGoDuration(kept)).toBeLessThanOrEqual(Math.max(0, leftSeconds * 1000));
  });

  test("names no credential and is not kept where there is none", () => {
    expect(answer(undefined)).toEqual({
      apiVersion: v1,
      kind: "CredentialProviderResponse",
      cacheKeyType: "Image",
      cacheDuration: "0s",
    });
  });

  test("says how it is kept where the request has a service account's token, and does not repeat that", () => {
    const given = answer(credential(), {
      serviceAccountToken: "sa-token",
      serviceAccountAnnotations: { a: "b" },
    });
    expect(given["serviceAccountTokenCacheType"]).toBe("ServiceAccount");
    expect(JSON.stringify(given)).not.toContain("sa-token");
  });

  test("gives Azure's registries a refresh token as a password, and refuses it for others", () => {
    const azure = credential({ registry: "acme.azurecr.io", username: "<token>" });
    expect(answer(azure)["auth"]).toEqual({
      "acme.azurecr.io": { username: "00000000-0000-0000-0000-000000000000", password: "hunter2" },
    });
    expect(() => answer(credential({ username: "<token>" }))).toThrow(CredentialError);
  });
});

test.each([
  ["nothing", "", "the document"],
  ["no JSON", "hunter2", "the document"],
  ["another kind", request({ kind: "Pod" }), "kind"],
  ["another version", request({ apiVersion: "credentialprovider.kubelet.k8s.io/v2" }), "apiVersion"],
  ["no image", request({ image: "" }), "image"],
  ["an image that is no text", request({ image: ["hunter2"] }), "image"],
])("refuses %s by the field that is wrong, without quoting it", (_, text, field) => {
  try {
    parseKubeletRequest(text);
  } catch (error) {
    expect(error).toBeInstanceOf(CredentialError);
    expect(String(error)).toContain(`${field} is wrong`);
    expect(String(error)).not.toContain("hunter2");
    return;
  }
  throw new Error("not refused");
});
