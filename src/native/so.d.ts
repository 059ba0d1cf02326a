declare module "*.so" {
  /** Path of the embedded file: in the source tree, or inside the compiled executable. */
  const path: string;
  export default path;
}

declare module "*.elf" {
  /** As of "*.so". */
  const path: string;
  export default path;
}
