import { CodedError } from "../std/error.ts";

export type ReferenceErrorCode = "bad_reference" | "bad_digest" | "bad_platform";

/** A text that does not name an image, a digest or a platform. */
export class ImageReferenceError extends CodedError<ReferenceErrorCode> {
  override readonly name = "ImageReferenceError";
}
