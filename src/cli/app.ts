import { buildApplication, buildRouteMap, type CommandContext } from "@stricli/core";
import { version } from "../std/version.ts";
import { alertRoutes } from "./alert.ts";
import { attach } from "./attach.ts";
import { audit } from "./audit.ts";
import { inspect, ps, stop } from "./container.ts";
import { credentialRoutes } from "./credential.ts";
import { dev } from "./dev.ts";
import { doctor } from "./doctor.ts";
import { endpointRoutes } from "./endpoint.ts";
import { events } from "./events.ts";
import { exec } from "./exec.ts";
import { identity } from "./identity.ts";
import { imageRoutes } from "./image.ts";
import { index } from "./index-image.ts";
import { keyRoutes } from "./key.ts";
import { kill } from "./kill.ts";
import { logs } from "./logs.ts";
import { mount, umount } from "./mount.ts";
import { rm, wait } from "./remove.ts";
import { run } from "./run.ts";
import { secretRoutes } from "./secret.ts";
import { tokenRoutes } from "./token.ts";
import { usageText } from "./usage-text.ts";
import { volumeRoutes } from "./volume.ts";
import { workerRoutes } from "./worker.ts";
import { workspaceRoutes } from "./workspace.ts";

/** Every command; `oci-node --help` shows them by `overview.ts`. */
export const commands = buildRouteMap<string, CommandContext>({
  routes: {
    dev,
    image: imageRoutes,
    run,
    ps,
    logs,
    exec,
    attach,
    stop,
    kill,
    wait,
    rm,
    inspect,
    events,
    volume: volumeRoutes,
    endpoint: endpointRoutes,
    secret: secretRoutes,
    alert: alertRoutes,
    credential: credentialRoutes,
    identity,
    worker: workerRoutes,
    workspace: workspaceRoutes,
    token: tokenRoutes,
    audit,
    key: keyRoutes,
    index,
    mount,
    umount,
    doctor,
  },
  docs: { brief: "Containers from private OCI images that start before they are downloaded" },
});

/** The command line of the executable. */
export const application = buildApplication<CommandContext>(commands, {
  name: "oci-node",
  versionInfo: { currentVersion: version },
  scanner: { caseStyle: "allow-kebab-for-camel", allowArgumentEscapeSequence: true },
  localization: { text: usageText },
  documentation: { disableAnsiColor: process.stdout.isTTY !== true, caseStyle: "convert-camel-to-kebab" },
});
