import { type CloudAnswer, type CloudRequest, Signer, verifiedClaims } from "../credential/cloud.test-kit.ts";
import { makeImage } from "./image.test-kit.ts";

const image = makeImage();
const signer = new Signer();
const scope = "repository:acme/app:pull";

export interface CloudRegistryOptions {
  /** Of its token service, on the registry's own host. */
  readonly path: string;
  readonly service: string | undefined;
  readonly lifeSeconds: number;
  /** Whether the token service says it in `expires_in`; otherwise the token, a JWT, does alone. */
  readonly saysLife: boolean;
  readonly now: () => number;
  /** Who comes with a request for a token. */
  readonly login: (request: CloudRequest) => string | undefined;
}

/** A cloud's registry with one image, `acme/app:1`: tokens for one repository by its own token service. */
export function cloudRegistry(options: CloudRegistryOptions): CloudAnswer {
  const token = (request: CloudRequest): Response => {
    const who = options.login(request);
    if (who === undefined) return Response.json({ errors: [{ code: "UNAUTHORIZED" }] }, { status: 401 });
    const asked = request.method === "POST" ? new URLSearchParams(request.body) : request.query;
    if (asked.get("scope") !== scope || asked.get("service") !== (options.service ?? null)) {
      return Response.json({ errors: [{ code: "UNSUPPORTED" }] }, { status: 400 });
    }
    const exp = options.now() / 1000 + options.lifeSeconds;
    const made = { access_token: signer.jwt({ sub: who, scope, exp }) };
    return Response.json(options.saysLife ? { ...made, expires_in: options.lifeSeconds } : made);
  };
  return (request) => {
    if (request.path === options.path) return token(request);
    if (request.path !== "/v2/acme/app/manifests/1") return new Response("", { status: 404 });
    const bearer = (request.headers.get("authorization") ?? "").replace(/^Bearer /, "");
    const claims = verifiedClaims(bearer, signer.publicKey);
    if (!(Number(claims?.["exp"]) * 1000 > options.now())) return challenge(request.host, options);
    const headers = {
      "Content-Type": image.manifest.mediaType,
      "Docker-Content-Digest": image.manifest.digest,
    };
    return new Response(image.manifestBytes as Uint8Array<ArrayBuffer>, { headers });
  };
}

function challenge(host: string, { path, service }: CloudRegistryOptions): Response {
  const named = service === undefined ? "" : `,service="${service}"`;
  const field = `Bearer realm="https://${host}${path}"${named},scope="${scope}"`;
  return new Response("{}", { status: 401, headers: { "WWW-Authenticate": field } });
}
