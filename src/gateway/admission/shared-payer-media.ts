import { isPublicHttpsAddress } from '../../lib/net/public-address.ts';

/** Not `//` alone: media in base64 can begin with it. */
const BEGINS_LIKE_ADDRESS = /^[\s\p{Cc}]*([a-z][a-z0-9+.-]+:[\\/]{2}|(file|gs|s3|ftp|https?):)/iu;
const BEGINS_LIKE_DATA = /^[\s\p{Cc}]*data:/iu;
/** Images and audio that are billed as tokens, in base64. Parameters could name a second type. */
const DATA_OF_MEDIA =
  /^data:(image\/(png|jpe?g|gif|webp)|audio\/(x-)?(wav|wave|mpeg|mp3|mp4|m4a|aac|ogg|opus|flac|webm|aiff));base64,/i;
const BEFORE_PATH = /^https:\/\/[^/?#]*/;
const PERCENT_ENCODED = /%([0-9a-f]{2})/gi;
const DOCUMENT_PATH = /\.pdf(?![a-z0-9])/i;

/** Readers of PDF accept other bytes before its mark. */
const PDF_MARK = '%PDF-';
const MAX_BYTES_BEFORE_PDF_MARK = 1_024;
/** In base64 with line breaks. */
const MAX_SEARCHED_LENGTH = 4_096;
const NOT_BASE64 = /[^a-z0-9+/_-]/gi;
const BASE64 = /[a-z0-9+/_-]/i;
/** Longer than servers accept. To decode one of several MB takes seconds. */
const MAX_ADDRESS_LENGTH = 8_192;
/** More than requests have. Each takes microseconds, and a body within its limits could have a million. */
const MAX_TEXTS = 10_000;
/** The mark in base64. */
const MIN_DOCUMENT_LENGTH = 7;

/** @returns a check of the texts of one body, see {@link isSharedPayerMedia}. It allows 10,000 of them. */
export function createSharedPayerMediaCheck(): typeof isSharedPayerMedia {
  let count = 0;
  return (text, isAddress) => {
    count += 1;
    return count <= MAX_TEXTS && isSharedPayerMedia(text, isAddress);
  };
}

/**
 * True for a text that may stand where a body names media and a shared payer pays: data of an image or of audio, also
 * without an address around it, or an address at public https. The upstream can be the operator's own, in whose network
 * a user must not read. Routers read a document, such as a PDF in an image part, with a tool that costs per page. What an
 * address serves is not known.
 * @param isAddress true where the text is an address, whatever it looks like.
 */
function isSharedPayerMedia(text: string, isAddress: boolean): boolean {
  // The search for a colon is fast for media in base64, and for many short texts.
  const hasColon = text.includes(':');
  if (hasColon && BEGINS_LIKE_DATA.test(text)) {
    const start = DATA_OF_MEDIA.exec(text)?.[0].length;
    return start !== undefined && !canBeDocument(text, start);
  }
  if (!isAddress && !(hasColon && BEGINS_LIKE_ADDRESS.test(text))) return !canBeDocument(text, 0);
  return text.length <= MAX_ADDRESS_LENGTH && isPublicHttpsAddress(text) && !namesDocument(text);
}

/** @param start of the base64. */
function canBeDocument(text: string, start: number): boolean {
  if (text.length - start < MIN_DOCUMENT_LENGTH) return false;
  const searched = text.slice(start, start + MAX_SEARCHED_LENGTH);
  // Readers of data URLs decode these before the base64.
  if (start > 0 && searched.includes('%')) return true;
  // After padding, lax readers continue, or begin a second text.
  const padding = searched.indexOf('=');
  if (padding >= 0 && BASE64.test(searched.slice(padding))) return true;
  const bytes = Buffer.from(searched.replace(NOT_BASE64, ''), 'base64');
  // Other characters, which readers skip, can fill what is searched.
  const isCut = text.length - start > MAX_SEARCHED_LENGTH && bytes.length < MAX_BYTES_BEFORE_PDF_MARK;
  return isCut || bytes.includes(PDF_MARK);
}

function namesDocument(address: string): boolean {
  const path = address.replace(BEFORE_PATH, '');
  const decoded = path.replace(PERCENT_ENCODED, (_code, hex: string) =>
    String.fromCharCode(parseInt(hex, 16)),
  );
  return DOCUMENT_PATH.test(decoded);
}
