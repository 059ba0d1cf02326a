import { Code, ConnectError } from "@connectrpc/connect";
import { isImageId } from "../image/image.ts";
import { parseReference } from "../reference/reference.ts";
import { type BuildFlags, buildImage } from "./build.ts";
import { CliError } from "./context.ts";

/**
 * Asks for what needs an image, which is built before where it never was; with credentials, in any case.
 *
 * @param ask throws `not_found` where the image was never built
 */
export async function withImage<T>(
  text: string,
  flags: BuildFlags,
  ask: (image: string) => Promise<T>,
): Promise<T> {
  const build = async () => (await buildImage(parseReference(text), flags)).id;
  const withCredentials = [flags.creds, flags.credsFile, flags.credsFrom, flags.identity, flags.secret].some(
    (flag) => flag !== undefined,
  );
  if (isImageId(text)) {
    if (!withCredentials) return await ask(text);
    throw new CliError("usage", "credentials are for an image that is to be built, and this one is", {
      next: "Give its reference in place of its id, or leave the credentials away.",
    });
  }
  if (withCredentials) return await ask(await build());
  try {
    return await ask(text);
  } catch (thrown) {
    if (ConnectError.from(thrown).code !== Code.NotFound) throw thrown;
    return await ask(await build());
  }
}
