import type { ServiceImpl } from "@connectrpc/connect";
import type { CodeStore } from "../container/code-store.ts";
import type { EndpointService, UploadCodeRequest } from "../gen/oci_node/v1/endpoint_service_pb.ts";
import { workspaceOf } from "../rpc/authentication.ts";
import { readCodeArchive } from "../runtime/code/archive.ts";
import { RuntimeError } from "../runtime/error.ts";
import { errnoOf } from "../std/error.ts";
import { logger } from "../std/log.ts";
import { formatSize } from "../std/size.ts";
import { sleep } from "../std/wait.ts";
import { assertDigest, CodeUpload } from "./code-upload.ts";
import { EndpointError } from "./error.ts";

const log = logger("endpoint");
/** Uploads at once of a workspace, and of all. */
const ownMax = 4;
const allMax = 32;
/** Who sends nothing for so long has gone. */
const silenceMsMax = 60_000;
/** Archives of a workspace, in sizes of one. */
const archivesMax = 32;

export interface CodeDependencies {
  readonly codes: Pick<CodeStore, "find" | "insert">;
  /** Where archives are while they come in. */
  readonly uploadsDir: string;
  /** Of an archive. */
  readonly codeBytesMax: number;
  readonly unpackedBytesMax: number;
}

/** The part of EndpointService that takes code in. */
export function codeMethods({
  codes,
  uploadsDir,
  codeBytesMax,
  unpackedBytesMax,
}: CodeDependencies): Pick<ServiceImpl<typeof EndpointService>, "getCode" | "uploadCode"> {
  const uploads = new Map<string, number>();
  return {
    async getCode({ sha256 }, context) {
      assertDigest(sha256);
      const found = await codes.find(workspaceOf(context), sha256);
      return { present: found !== undefined, sizeBytesMax: BigInt(codeBytesMax) };
    },
    async uploadCode(requests, context) {
      const workspaceId = workspaceOf(context);
      const leave = enter(uploads, workspaceId);
      let upload: CodeUpload | undefined;
      try {
        let sha256 = "";
        for await (const request of withoutSilence(requests)) {
          if (upload === undefined) {
            ({ sha256 } = request);
            upload = await CodeUpload.begin(uploadsDir, sha256, codeBytesMax);
          } else if (request.sha256 !== "" && request.sha256 !== sha256) {
            throw new EndpointError("bad_spec", "the pieces of an archive of code name two digests", {
              next: "Send each archive by a call of its own.",
            });
          }
          await upload.add(request.data);
        }
        if (upload === undefined) throw new EndpointError("code_refused", "the archive of code is empty");
        const sizeBytes = upload.finish();
        await assertUsable(upload, unpackedBytesMax);
        const kept = await codes.insert(
          workspaceId,
          sha256,
          sizeBytes,
          (position) => (upload as CodeUpload).piece(position),
          archivesMax * codeBytesMax,
        );
        if (!kept) throw tooMany(archivesMax * codeBytesMax);
        log.info("code uploaded", { workspace: workspaceId, sha256, bytes: sizeBytes });
        return { sha256, sizeBytes: BigInt(sizeBytes) };
      } catch (error) {
        throw errnoOf(error) === "ENOSPC" ? diskFull(error) : error;
      } finally {
        leave();
        await upload?.close();
      }
    },
  };
}

/** @returns to be called when the upload has ended. @throws EndpointError `busy` */
function enter(uploads: Map<string, number>, workspaceId: string): () => void {
  const own = uploads.get(workspaceId) ?? 0;
  const all = [...uploads.values()].reduce((sum, count) => sum + count, 0);
  if (own >= ownMax || all >= allMax)
    throw new EndpointError(
      "busy",
      own >= ownMax ? `${ownMax} uploads of this workspace are under way` : `${allMax} uploads are under way`,
      { next: "Try it again when one of them has ended." },
    );
  uploads.set(workspaceId, own + 1);
  return () => {
    const left = (uploads.get(workspaceId) ?? 1) - 1;
    if (left === 0) uploads.delete(workspaceId);
    else uploads.set(workspaceId, left);
  };
}

/** Ends with an error when nothing comes for a while: an upload that hangs must not hold a place. */
async function* withoutSilence(
  requests: AsyncIterable<UploadCodeRequest>,
): AsyncGenerator<UploadCodeRequest> {
  const iterator = requests[Symbol.asyncIterator]();
  try {
    for (;;) {
      const heard = new AbortController();
      const silence = sleep(silenceMsMax, heard.signal).catch(() => undefined);
      const next = await Promise.race([iterator.next(), silence]).finally(() => heard.abort());
      if (next === undefined)
        throw new EndpointError("code_refused", `nothing more came for ${silenceMsMax / 1000} seconds`, {
          next: "Upload it again.",
        });
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    // Not waited for: it may hang in what does not come.
    iterator.return?.()?.catch(() => undefined);
  }
}

/** What no worker would unpack is refused here, where its owner hears it. @throws EndpointError `code_refused` */
async function assertUsable(upload: CodeUpload, unpackedBytesMax: number): Promise<void> {
  try {
    await readCodeArchive(upload.pieces(), unpackedBytesMax);
  } catch (error) {
    if (!(error instanceof RuntimeError) || error.code !== "code") throw error;
    throw new EndpointError("code_refused", error.message, { next: error.next, cause: error });
  }
}

function diskFull(cause: unknown): EndpointError {
  return new EndpointError("busy", "the gateway's disk has no space left for uploads", {
    next: "Ask the operator to make room below the gateway's data_dir, and upload it again.",
    cause,
  });
}

function tooMany(bytesMax: number): EndpointError {
  return new EndpointError(
    "code_too_large",
    `the archives of code that this workspace uses would be larger than ${formatSize(bytesMax)} together`,
    { next: "Remove endpoints that are not needed any more: oci-node endpoint ls." },
  );
}
