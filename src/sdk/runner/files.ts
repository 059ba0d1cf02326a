import door from "./__main__.py" with { type: "text" };
import packageText from "./oci_node_runner/__init__.py" with { type: "text" };
import answer from "./oci_node_runner/answer.py" with { type: "text" };
import call from "./oci_node_runner/call.py" with { type: "text" };
import loop from "./oci_node_runner/loop.py" with { type: "text" };
import messages from "./oci_node_runner/messages.py" with { type: "text" };
import process from "./oci_node_runner/process.py" with { type: "text" };
import server from "./oci_node_runner/server.py" with { type: "text" };
import start from "./oci_node_runner/start.py" with { type: "text" };
import target from "./oci_node_runner/target.py" with { type: "text" };
import watchdog from "./oci_node_runner/watchdog.py" with { type: "text" };
import wire from "./oci_node_runner/wire.py" with { type: "text" };
import stub from "./stub/oci_node/__init__.py" with { type: "text" };

/** Where containers have the runner's folder; `PYTHON /oci-node/runner/__main__.py` starts it. */
export const runnerPath = "/oci-node/runner";

/**
 * The program that serves a function of uploaded code in an image's own Python: paths below {@link runnerPath} and texts.
 * The worker shows the folder in the container, read-only.
 *
 * It takes variables: `OCI_NODE_HANDLER` (`module:function`), `OCI_NODE_PORT` (8000), `OCI_NODE_CONCURRENCY` (1),
 * `OCI_NODE_HOST` (0.0.0.0: an address to listen on; 127.0.0.1 where the container shares the host's network),
 * `OCI_NODE_CODE` (/oci-node/code), `OCI_NODE_TIMEOUT_MS` (60000: the endpoint's, of a request).
 */
export const runnerFiles: Readonly<Record<string, string>> = {
  "__main__.py": door,
  "oci_node_runner/__init__.py": packageText,
  "oci_node_runner/answer.py": answer,
  "oci_node_runner/call.py": call,
  "oci_node_runner/loop.py": loop,
  "oci_node_runner/messages.py": messages,
  "oci_node_runner/process.py": process,
  "oci_node_runner/server.py": server,
  "oci_node_runner/start.py": start,
  "oci_node_runner/target.py": target,
  "oci_node_runner/watchdog.py": watchdog,
  "oci_node_runner/wire.py": wire,
  "stub/oci_node/__init__.py": stub,
};
