const bytes=text=>Uint8Array.from(atob(text),c=>c.charCodeAt(0)),palette=new Uint32Array(bytes('{{ palette }}').buffer);
function cellsAt(pixels,cells,low,high){return Float32Array.from({length:pixels},(_,p)=>{const u=((p+.5)/pixels-low)/(high-low);
return u<0||u>1?-1:Math.min(Math.max(u*cells-.5,0),cells-1)})}
function paint(canvas,values,grid,boxes){const W=canvas.width,H=canvas.height,[,h,w]=grid,sum=new Float32Array(W*H),line=new Float32Array(w);
boxes.forEach((box,t)=>{const xs=cellsAt(W,w,box[0],box[2]),ys=cellsAt(H,h,box[1],box[3]);
for(let y=0;y<H;y++)if(ys[y]>=0){const i=Math.floor(ys[y]),a=(t*h+i)*w,b=(t*h+Math.min(i+1,h-1))*w,down=ys[y]-i;
for(let j=0;j<w;j++)line[j]=values[a+j]+down*(values[b+j]-values[a+j]);
for(let x=0;x<W;x++)if(xs[x]>=0){const j=Math.floor(xs[x]),n=line[j];sum[y*W+x]+=n+(xs[x]-j)*(line[Math.min(j+1,w-1)]-n)}}});
const image=new ImageData(W,H),out=new Uint32Array(image.data.buffer);
for(let k=0;k<out.length;k++)out[k]=palette[Math.min(255,Math.round(255*sum[k]))];canvas.getContext('2d').putImageData(image,0,0)}
