import { createClient } from "@connectrpc/connect";
import { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { DeploymentState, EndpointService } from "../gen/oci_node/v1/endpoint_service_pb.ts";
import { command } from "./action.ts";
import { type BuildFlags, buildFlags } from "./build.ts";
import {
  type ContainerFlags,
  containerAliases,
  containerFlags,
  containerRequest,
} from "./container-flags.ts";
import { parseCount, parseSeconds } from "./container-words.ts";
import { CliError, connectTransport } from "./context.ts";
import { identityFlag } from "./credentials.ts";
import { endpointShape } from "./endpoint-shape.ts";
import { waitForDeployment } from "./endpoint-watch.ts";
import { note, printJson, printLine } from "./output.ts";
import { withImage } from "./with-image.ts";

interface DeployFlags extends ContainerFlags, BuildFlags {
  readonly json: boolean;
  readonly detach: boolean;
  readonly force: boolean;
  readonly port?: number;
  readonly public: boolean;
  readonly concurrency?: number;
  readonly min?: number;
  readonly max?: number;
  readonly keepWarm?: number;
  readonly timeout?: number;
  readonly startupTimeout?: number;
  readonly queue?: number;
}

const parsed = (parse: (text: string) => unknown, placeholder: string, brief: string) =>
  ({ kind: "parsed", parse, optional: true, placeholder, brief }) as const;

export const deploy = command<DeployFlags, string[]>({
  brief: "Serve an image's own HTTP server as an endpoint, or a new version of it",
  fullDescription:
    "The program must listen on --port. A container of it is started first; requests go to it once it answers, and what an " +
    "earlier version has begun goes on to its end there. Nothing is deployed where nothing is different. Functions are deployed " +
    "with the Python package: `oci-node-py deploy app.py:handler`.\n\nEXAMPLES\n" +
    "  oci-node endpoint deploy web ghcr.io/acme/web:1 --port 8080 --public\n" +
    "  oci-node endpoint deploy api IMAGE --max 20 --keep-warm 300 --secret-env db=DB_PASSWORD -- serve --workers 4",
  flags: {
    ...buildFlags,
    ...identityFlag,
    port: parsed(parsePort, "N", "Where the program serves HTTP/1.1 (default 8000)"),
    public: { kind: "boolean", default: false, brief: "Anybody may call it, without a token" },
    concurrency: parsed(parseCount, "N", "Requests at once for each container (default 100)"),
    min: parsed(parseWhole, "N", "Containers that are kept without requests (default 0)"),
    max: parsed(parseCount, "N", "Containers at most (default 10)"),
    keepWarm: parsed(parseSeconds, "S", "Seconds that a container without requests is kept (default 60)"),
    timeout: parsed(parseSeconds, "S", "Seconds that a request may take (default 60)"),
    startupTimeout: parsed(parseSeconds, "S", "Seconds until the program must listen (default 60)"),
    queue: parsed(parseCount, "N", "Requests that may wait for a container (default 100)"),
    force: { kind: "boolean", default: false, brief: "Deploy even where nothing is different" },
    detach: { kind: "boolean", default: false, brief: "Do not wait until it answers" },
    ...containerFlags,
  },
  aliases: { d: "detach", ...containerAliases },
  positional: {
    kind: "array",
    parameter: {
      parse: String,
      placeholder: "NAME IMAGE [-- CMD…]",
      brief: "What it is called, image id or reference, then the command",
    },
    minimum: 2,
  },
  async run(flags, name = "", image = "", ...argv) {
    const transport = connectTransport();
    const endpoints = createClient(EndpointService, transport);
    const { name: _, ...container } = containerRequest(flags);
    const { endpoint, deployment } = await withImage(image, flags, (built) =>
      endpoints.deployEndpoint({
        name,
        force: flags.force,
        spec: {
          ...container,
          image: built,
          command: [...argv],
          port: flags.port ?? 0,
          public: flags.public,
          concurrency: flags.concurrency ?? 0,
          containersMin: flags.min ?? 0,
          containersMax: flags.max ?? 0,
          keepWarmMs: milliseconds(flags.keepWarm),
          requestTimeoutMs: milliseconds(flags.timeout),
          startupTimeoutMs: milliseconds(flags.startupTimeout),
          queueMax: flags.queue ?? 0,
        },
      }),
    );
    if (endpoint === undefined || deployment === undefined)
      throw new CliError("failed", "the node made no deployment");
    if (deployment.state === DeploymentState.ACTIVE)
      note(`nothing is different: version ${deployment.version} goes on; --force deploys it again`);
    const clients = { endpoints, containers: createClient(ContainerService, transport) };
    const shown = flags.detach
      ? endpoint
      : await waitForDeployment(clients, name, deployment, { quiet: flags.json });
    if (flags.json) {
      printJson(endpointShape(shown));
      return 0;
    }
    printLine(shown.url || shown.path);
    if (!flags.detach && !flags.public)
      note(`  curl -H "Authorization: Bearer $OCI_NODE_TOKEN" ${shown.url || shown.path}`);
    return 0;
  },
});

/** 0 would be the default. */
function milliseconds(seconds: number | undefined): number {
  return seconds === undefined ? 0 : Math.max(1, Math.round(seconds * 1000));
}

function parsePort(text: string): number {
  const port = Number(text);
  if (Number.isInteger(port) && port >= 1 && port <= 65_535) return port;
  throw new RangeError(`${JSON.stringify(text)} is no port`);
}

function parseWhole(text: string): number {
  return text === "0" ? 0 : parseCount(text);
}
