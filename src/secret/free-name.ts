import { SecretError } from "./error.ts";

/**
 * Creates a secret under the first of several names that is not taken. A name that is taken meanwhile is passed over.
 *
 * @throws SecretError `exists` when all are; whatever else `create` throws
 */
export async function createUnderFreeName<T>(
  names: readonly string[],
  create: (name: string) => Promise<T>,
): Promise<T> {
  let taken: SecretError | undefined;
  for (const name of names) {
    try {
      return await create(name);
    } catch (error) {
      if (!(error instanceof SecretError) || error.code !== "exists") throw error;
      taken = error;
    }
  }
  throw taken ?? new SecretError("bad_name", "there is no name to create the secret under");
}
