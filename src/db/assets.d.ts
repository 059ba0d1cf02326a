/** Imported `with { type: "text" }`: the file's text. */
declare module "*.sql" {
  const text: string;
  export default text;
}

/** Imported `with { type: "file" }`: a path, inside the executable once it is compiled. */
declare module "*.zst" {
  const path: string;
  export default path;
}
