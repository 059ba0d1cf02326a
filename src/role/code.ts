import { join } from "node:path";
import type { Config } from "../config.ts";
import { codeMethods } from "../endpoint/code-service.ts";
import type { ControlPlane } from "./control-plane.ts";

/** The part of EndpointService that takes code in, within the operator's limits. */
export function codeService(config: Config, plane: ControlPlane): ReturnType<typeof codeMethods> {
  const { code_max: codeBytesMax, code_unpacked_max: unpackedBytesMax } = config.endpoints;
  const uploadsDir = join(config.data_dir, "uploads");
  return codeMethods({ codes: plane.codes, uploadsDir, codeBytesMax, unpackedBytesMax });
}
