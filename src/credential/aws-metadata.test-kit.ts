import type { CloudAnswer, CloudRequest } from "./cloud.test-kit.ts";
import type { AwsKeys } from "./issuer.ts";

/** Keys as EC2 and ECS write them. */
export function keysJson(keys: AwsKeys): Record<string, string> {
  return {
    AccessKeyId: keys.accessKeyId,
    SecretAccessKey: keys.secretAccessKey.expose(),
    Token: keys.sessionToken?.expose() ?? "",
    Expiration: keys.expiresAt?.toISOString().replace(/\.\d+Z$/, "Z") ?? "",
  };
}

/** An EC2 instance's metadata service with version 1 switched off, as strict as the real one. */
export class FakeInstance {
  role: string | undefined = "node";
  /** In place of `Success`, what EC2 says of the keys. */
  code = "Success";
  readonly #keys: () => AwsKeys;
  readonly #tokens = new Set<string>();

  constructor(keys: () => AwsKeys) {
    this.#keys = keys;
  }

  readonly answer: CloudAnswer = (request) => {
    if (request.path === "/latest/api/token") return this.#token(request);
    const token = request.headers.get("x-aws-ec2-metadata-token") ?? "";
    if (request.method !== "GET" || !this.#tokens.has(token)) return new Response("", { status: 401 });
    const list = "/latest/meta-data/iam/security-credentials/";
    if (this.role === undefined || !request.path.startsWith(list)) return new Response("", { status: 404 });
    if (request.path === list) return new Response(this.role);
    if (request.path !== `${list}${this.role}`) return new Response("", { status: 404 });
    if (this.code !== "Success") return Response.json({ Code: this.code, Message: "planted" });
    const dates = { LastUpdated: "2026-01-01T00:00:00Z", Type: "AWS-HMAC" };
    return Response.json({ Code: this.code, ...dates, ...keysJson(this.#keys()) });
  };

  #token({ method, headers }: CloudRequest): Response {
    const seconds = Number(headers.get("x-aws-ec2-metadata-token-ttl-seconds") ?? "0");
    if (method !== "PUT") return new Response("", { status: 405 });
    if (headers.has("x-forwarded-for")) return new Response("", { status: 403 });
    if (!(seconds >= 1 && seconds <= 21_600)) return new Response("", { status: 400 });
    const token = crypto.randomUUID().replaceAll("-", "");
    this.#tokens.add(token);
    return new Response(token);
  }
}

/** What gives an ECS task or an EKS pod its keys. */
export class FakeContainer {
  /** What the token in the file has to be; undefined: an ECS task, which needs none. */
  token: string | undefined;
  readonly #path: string;
  readonly #keys: () => AwsKeys;

  constructor(path: string, keys: () => AwsKeys) {
    this.#path = path;
    this.#keys = keys;
  }

  readonly answer: CloudAnswer = ({ method, path, headers }) => {
    if (method !== "GET" || path !== this.#path) return Response.json({ code: "NotFound" }, { status: 404 });
    if ((headers.get("authorization") ?? undefined) !== this.token) {
      return Response.json({ code: "AccessDenied", message: "planted" }, { status: 401 });
    }
    return Response.json({ RoleArn: "arn:aws:iam::222222222222:role/task", ...keysJson(this.#keys()) });
  };
}
