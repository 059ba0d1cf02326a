/**
 * Bun 1.4.5 counts a frame of some ordinary calls as an invalid one, and at the thousandth breaks the connection with the calls
 * that are under way. What an invalid frame costs is what a valid one does.
 */
export const sessionLimits: object = { maxSessionInvalidFrames: 2 ** 31 - 1 };
