import { CodedError } from "../std/error.ts";

export type ImageErrorCode = "not_found" | "in_use" | "conflict" | "secret_not_found";

/** An image of a workspace that is not there, is in use, or does not belong together. */
export class ImageError extends CodedError<ImageErrorCode> {
  override readonly name = "ImageError";
}
