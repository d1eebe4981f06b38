import { isPublicHttpsAddress } from '../../lib/net/public-address.ts';

/** Not `//` alone: media in base64 can begin with it. */
const BEGINS_LIKE_ADDRESS = /^[\s\p{Cc}]*([a-z][a-z0-9+.-]+:[\\/]{2}|(file|gs|s3|ftp|https?):)/iu;
const BEGINS_LIKE_DATA = /^[\s\p{Cc}]*data:/iu;
/** Media that are billed as tokens. */
const DATA_OF_MEDIA = /^data:(image|audio)\//i;
const DOCUMENT_PATH = /\.pdf($|[?#])/i;

/**
 * True for a text that may stand where a body names media and a shared payer pays: data of an image or of audio, also
 * without an address around it, or an address at public https. The upstream can be the operator's own, in whose network
 * a user must not read. Routers read a document, such as a PDF in an image part, with a tool that costs per page.
 * @param isAddress true where the text is an address, whatever it looks like.
 */
export function isSharedPayerMedia(text: string, isAddress: boolean): boolean {
  // The search for a colon is fast for media in base64, and for many short texts.
  const hasColon = text.includes(':');
  if (hasColon && BEGINS_LIKE_DATA.test(text)) return DATA_OF_MEDIA.test(text);
  if (!isAddress && !(hasColon && BEGINS_LIKE_ADDRESS.test(text))) return true;
  return isPublicHttpsAddress(text) && !DOCUMENT_PATH.test(text);
}
